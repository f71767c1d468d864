/* The model file as part of the program; the engine wants it at a multiple of 64 bytes. */
    .section .rodata
    .balign 64
    .global network_model
    .type network_model, %object
network_model:
    .incbin NETWORK_MODEL
network_model_end:
    .size network_model, network_model_end - network_model

    .balign 8
    .global network_model_bytes
    .type network_model_bytes, %object
    .size network_model_bytes, 8
network_model_bytes:
    .quad network_model_end - network_model

    .section .note.GNU-stack, "", %progbits
