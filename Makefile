# Each target is a call of the script of the same name; run the script itself to pass arguments.
.PHONY: bench bench-fusion bench-methods bench-sparse bench-engine bench-search check demo docs sanitize setup test zoo
.NOTPARALLEL:

bench bench-fusion bench-methods bench-sparse bench-engine bench-search check demo docs sanitize setup test zoo:
	@scripts/$@
