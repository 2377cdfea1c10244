//! The README, as a new user pastes it.

use std::path::Path;

use tokio::process::Command;

use crate::harness::keystead::{Keystead, Ran};

const README: &str = include_str!("../../../README.md");

/// The commands of a section, without their prompts, one block after the other.
fn blocks(section: &str) -> Vec<String> {
    let (_, rest) = README.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```console\n").skip(1).map(|it| it.split("```").next().unwrap());
    blocks.map(|block| block.replace("$ ", "").replace("\\\n", "")).collect()
}

#[tokio::test]
async fn every_command_on_keys_works_from_top_to_bottom_and_none_undoes_another() {
    let keystead = Keystead::new();
    let server = keystead.serve(&[]).await;
    let [install, keys @ ..] = &blocks("Keys")[..] else { panic!("{README}") };
    assert_eq!(install, "cargo install --path . --locked\n");
    let [curl, ..] = &blocks("Call it")[..] else { panic!("{README}") };
    let curl = curl.replace("127.0.0.1:9464", &server.admin.to_string());
    assert!(curl.starts_with("curl -i ") && keys.len() == 3, "{README}");

    let programs = Path::new(env!("CARGO_BIN_EXE_keystead")).parent().unwrap();
    let script = format!("PATH={}:$PATH\n{}{curl}", programs.display(), keys.concat());
    let mut shell = Command::new("bash");
    shell.args(["-eu", "-c", &script]).current_dir(keystead.path(""));
    shell.env("KEYSTEAD_LISTEN__GRPC", server.grpc.to_string());
    let said = Ran::of(shell, "").await.ok();
    assert_eq!(said.matches("valid\n").count(), 2, "{said}");
    assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
}

#[test]
fn minimum_rust_version_is_that_of_the_package() {
    let version = format!("Rust {} or later", env!("CARGO_PKG_RUST_VERSION"));
    assert!(README.contains(&version), "{version} is not in README.md");
}
