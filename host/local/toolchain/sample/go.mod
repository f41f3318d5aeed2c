module capstan.dev/toolchain/sample

go 1.25.0
