//! The `keystead` program: runs the command line and returns its exit code.

use std::process::ExitCode;

/// A gRPC server makes many small allocations from several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keystead::cli::main()
}
