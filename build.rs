//! Compiles `proto/` with protox, so that no protoc has to be installed, and
//! rebuilds the crate when a migration is added.

#![expect(clippy::disallowed_methods, reason = "cargo speaks to a build script by environment")]

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    // Embedded into the crate by a macro, which would not see a new file.
    println!("cargo::rerun-if-changed=migrations");

    let keystead = compiled("keystead/v1/authz.proto")?;
    let for_reflection = PathBuf::from(env::var("OUT_DIR")?).join("keystead.v1.bin");
    fs::write(for_reflection, keystead.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // It holds the key; `transport/authz.rs` has a `Debug` that does not show it.
        .skip_debug(["keystead.v1.CheckRequest"])
        .compile_fds(keystead.file_descriptor_set())?;

    let envoy = compiled("envoy/service/auth/v3/external_auth.proto")?;
    tonic_prost_build::configure().bytes(".").compile_fds(envoy.file_descriptor_set())?;
    Ok(())
}

fn compiled(file: &str) -> Result<protox::Compiler, protox::Error> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_file(file)?;
    Ok(compiler)
}
