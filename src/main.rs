//! The `keystead` program: parse the arguments, hand over, exit.

use std::process::ExitCode;

/// Many small allocations from several threads are what a gRPC server makes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keystead::cli::main()
}
