//! Compiles `proto/` with protox, so that no protoc has to be installed, and
//! rebuilds the crate when a migration is added.

#![expect(clippy::disallowed_methods, reason = "cargo speaks to a build script by environment")]

use std::{env, error::Error, fs, path::PathBuf};

/// What a listener describes by reflection: the file of its service, and the name of
/// the set of descriptors that is embedded.
const DESCRIBED: [(&str, &str); 3] = [
    ("keystead/v1/authz.proto", "authz.bin"),
    ("keystead/v1/diagnostics.proto", "diagnostics.bin"),
    ("grpc/health/v1/health.proto", "health.bin"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    // Embedded into the crate by a macro, which would not see a new file.
    println!("cargo::rerun-if-changed=migrations");

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    for (file, descriptors) in DESCRIBED {
        let compiled = compile(&[file])?;
        fs::write(out_dir.join(descriptors), compiled.encode_file_descriptor_set())?;
    }
    let described = compile(&DESCRIBED.map(|(file, _)| file))?;
    tonic_prost_build::configure()
        // It holds the key; `transport/authz.rs` has a `Debug` that does not show it.
        .skip_debug(["keystead.v1.CheckRequest"])
        .compile_fds(described.file_descriptor_set())?;

    let envoy = compile(&["envoy/service/auth/v3/external_auth.proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(envoy.file_descriptor_set())?;
    Ok(())
}

fn compile(files: &[&str]) -> Result<protox::Compiler, protox::Error> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    Ok(compiler)
}
