//! Error messages of a service that cannot start.

use std::{fs, net::TcpListener};

use keystead::{app::Listeners, config::Config};

use crate::harness::{
    backend::{Backend, Embedded},
    keystead::{Keystead, Ran},
};

async fn why_not(config: &Config) -> String {
    Listeners::bind(config, None).await.unwrap_err().to_string()
}

#[tokio::test]
async fn failed_start_on_a_taken_port_creates_no_store() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (name, value) in [
        ("KEYSTEAD_LISTEN__GRPC", &taken),
        ("KEYSTEAD_LISTEN__ADMIN", &taken),
        ("KEYSTEAD_LISTEN__CONTROL", &taken),
        ("KEYSTEAD_LISTEN__FORWARD_AUTH", &taken),
    ] {
        let keystead = Keystead::new();
        let mut command = keystead.command(["serve"]);
        let free = "127.0.0.1:0";
        command.env("KEYSTEAD_LISTEN__GRPC", free).env("KEYSTEAD_LISTEN__ADMIN", free);
        command.env(name, value);
        let error = Ran::of(command, "").await.failed(1);
        assert!(error.contains("; stop the program that uses the port"), "{name}: {error}");
        assert_eq!(fs::read_dir(keystead.path("")).unwrap().count(), 0, "{name}");
    }
}

#[tokio::test]
async fn port_in_use_is_reported_with_its_setting_and_the_remedy() {
    let embedded = Embedded::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let told = |setting: &str| {
        format!(
            "cannot listen on {address} ({setting}): Address already in use (os error 98); \
             stop the program that uses the port, or choose another"
        )
    };
    let mut config = embedded.config();
    config.listen.grpc = address;
    assert_eq!(why_not(&config).await, told("listen.grpc"));
    let mut config = embedded.config();
    config.listen.admin = address;
    assert_eq!(why_not(&config).await, told("listen.admin"));
    let mut config = embedded.config();
    config.listen.control = Some(address);
    assert_eq!(why_not(&config).await, told("listen.control"));
    let mut config = embedded.config();
    config.listen.forward_auth = Some(address);
    assert_eq!(why_not(&config).await, told("listen.forward_auth"));
}

#[tokio::test]
async fn address_of_another_machine_is_reported_with_the_remedy() {
    let embedded = Embedded::start().await;
    let mut config = embedded.config();
    // Set aside for documentation (RFC 5737).
    config.listen.grpc = "192.0.2.1:0".parse().unwrap();
    let told = why_not(&config).await;
    assert!(told.starts_with("cannot listen on 192.0.2.1:0 (listen.grpc): "), "{told}");
    assert!(told.ends_with("; choose an address of this machine"), "{told}");
}
