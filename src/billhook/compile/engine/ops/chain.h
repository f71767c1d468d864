/* A product and the depthwise convolution that alone reads it, a few planes at a time: planes that go to one reader
 * never leave the cache. */

static void bh_chain(const bh_job *job) {
    const bh_instruction *product = job->op;
    bh_job reader = *job;
    reader.op++;
    const size_t shift = (size_t)job->share * reader.op->arg[DEPTHWISE_SLOT];
    const uint32_t channels = reader.op->ref[DEPTHWISE_IN_REF].count, blocks = product->arg[SPMM_BLOCKS];
    const uint32_t together = BH_CHAIN / product->arg[SPMM_ROWS];
    const bh_sweep sweep = bh_depthwise_sweep(&reader, shift);
    uint32_t group, end;
    bh_share(job, (channels + BH_CHAIN - 1) / BH_CHAIN, &group, &end);
    for (; group < end; group++) {
        for (uint32_t n = group * together; n < (group + 1) * together && n < blocks; n++)
            bh_spmm_block(job, n, 0, product->arg[SPMM_VECTORS], shift);
        const uint32_t first = group * BH_CHAIN, left = channels - first;
        bh_depthwise_channels(&sweep, reader.op, first, first + (left < BH_CHAIN ? left : BH_CHAIN));
    }
}
