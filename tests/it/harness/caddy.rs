//! Caddy, with the example that users copy.

use std::{fs, net::SocketAddr, path::Path};

use super::gateway::{Gateway, Launch, program, replaced};

/// A running Caddy that asks `keystead` about what it passes on to `service`, with
/// one text of its configuration replaced by another.
pub(crate) async fn start(
    change: (&str, &str),
    keystead: SocketAddr,
    service: SocketAddr,
) -> Gateway {
    Gateway::start("examples/caddy/Caddyfile", prepare, change, keystead, service).await
}

/// The example, with options that keep it to the loopback address and to its
/// folder.
fn prepare(folder: &Path, example: &str, port: u16) -> Launch {
    let example = replaced(example, ":8080 {", &format!(":{port} {{"));
    let options = "{\n\tadmin off\n\tdefault_bind 127.0.0.1\n}\n";
    let file = folder.join("Caddyfile");
    fs::write(&file, format!("{options}{example}")).unwrap();
    let (folder, file) = (folder.display(), file.display());
    let caddy = program("caddy");
    let arguments = format!(
        "XDG_CONFIG_HOME={folder} XDG_DATA_HOME={folder} {} run --adapter caddyfile --config {file}",
        caddy.display()
    );
    let arguments = arguments.split(' ').map(str::to_owned).collect();
    Launch { program: "/usr/bin/env".into(), arguments }
}
