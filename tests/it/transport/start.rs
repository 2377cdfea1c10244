//! What an operator is told when the service cannot start.

use std::net::TcpListener;

use keystead::{
    app::{App, open_store},
    config::Config,
    time::Clock,
};

use crate::harness::backend::{Backend, Embedded};

async fn why_not(config: &Config) -> String {
    let opened = open_store(config).await.unwrap();
    App::build(config, opened, Clock::System).await.unwrap_err().to_string()
}

#[tokio::test]
async fn port_that_is_in_use_is_told_with_its_setting_and_the_remedy() {
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
async fn address_of_another_machine_is_told_with_the_remedy() {
    let embedded = Embedded::start().await;
    let mut config = embedded.config();
    // Set aside for documentation (RFC 5737).
    config.listen.grpc = "192.0.2.1:0".parse().unwrap();
    let told = why_not(&config).await;
    assert!(told.starts_with("cannot listen on 192.0.2.1:0 (listen.grpc): "), "{told}");
    assert!(told.ends_with("; choose an address of this machine"), "{told}");
}
