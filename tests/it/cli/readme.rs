//! The README, as a new user pastes it.

use std::path::Path;

use tokio::process::Command;

use crate::harness::{
    free_port,
    keystead::{Keystead, Ran},
    postgres::Postgres,
};

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

    let mut shell = shell(&keystead, &format!("{}{curl}", keys.concat()));
    shell.env("KEYSTEAD_LISTEN__GRPC", server.grpc.to_string());
    let said = Ran::of(shell, "").await.ok();
    assert_eq!(said.matches("valid\n").count(), 2, "{said}");
    assert!(said.contains("HTTP/1.1 200 OK"), "{said}");
}

#[tokio::test]
async fn every_command_on_postgres_works_from_top_to_bottom() {
    let postgres = Postgres::start_new().await;
    let keystead = Keystead::new();
    let [roles, serve] = &blocks("On PostgreSQL")[..] else { panic!("{README}") };
    let (install, roles) = roles.split_once("sudo service postgresql start\n").unwrap();
    assert_eq!(install, "sudo apt-get install -y postgresql\n");
    // The server of the test, which is empty but for a role and a database of that name.
    let empty = "psql -d template1 -c 'DROP DATABASE keystead' -c 'DROP ROLE keystead'\n";
    let roles = roles.replace("sudo -u postgres ", "").replace("psql ", "psql -d template1 ");
    let serve = serve.replace("@localhost/", &format!("@localhost:{}/", postgres.port()));
    let end = "kill -s INT $!\nwait $!\n";
    let mut shell = shell(&keystead, &[empty, &roles, &serve, end].concat());
    shell.env("PGHOST", postgres.home()).env("PGPORT", postgres.port().to_string());
    shell.env("PGUSER", "postgres");
    for listener in ["GRPC", "ADMIN"] {
        let address = format!("127.0.0.1:{}", free_port());
        shell.env(format!("KEYSTEAD_LISTEN__{listener}"), address);
    }
    let said = Ran::of(shell, "").await.ok();
    assert!(said.contains("applied V1__keys\ngranted keystead the rights"), "{said}");
    assert!(said.contains("SERVING\nvalid\n"), "{said}");
}

/// A shell that ends at the first command that fails.
fn shell(keystead: &Keystead, script: &str) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_keystead")).parent().unwrap();
    let script = format!("PATH={}:$PATH\n{script}", programs.display());
    let mut shell = Command::new("bash");
    shell.args(["-eu", "-c", &script]).current_dir(keystead.path(""));
    shell
}

#[test]
fn minimum_rust_version_is_that_of_the_package() {
    let version = format!("Rust {} or later", env!("CARGO_PKG_RUST_VERSION"));
    assert!(README.contains(&version), "{version} is not in README.md");
}
