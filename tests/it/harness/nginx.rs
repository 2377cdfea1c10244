//! nginx, with the example that users copy.

use std::{fs, net::SocketAddr, path::Path};

use super::gateway::{Gateway, Launch, program, replaced};

/// A running nginx that asks `keystead` about what it passes on to `service`, with
/// one text of its configuration replaced by another.
pub(crate) async fn start(
    change: (&str, &str),
    keystead: SocketAddr,
    service: SocketAddr,
) -> Gateway {
    Gateway::start("examples/nginx/nginx.conf", prepare, change, keystead, service).await
}

/// The example is for the `http` section: the rest is that of a small nginx that
/// keeps to its folder, in one process, so that nothing outlives it.
fn prepare(folder: &Path, example: &str, port: u16) -> Launch {
    let example = replaced(example, "listen 8080;", &format!("listen 127.0.0.1:{port};"));
    let example = replaced(&example, "/var/log/nginx/access.log", "access.log");
    fs::write(folder.join("example.conf"), example).unwrap();
    let own = "daemon off; master_process off; pid pid; error_log stderr;\n\
               events {}\n\
               http {\n\
               client_body_temp_path body; proxy_temp_path proxy;\n\
               fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
               include example.conf;\n\
               }\n";
    let main = folder.join("nginx.conf");
    fs::write(&main, own).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let arguments = ["-e", "stderr", "-p"].map(str::to_owned).into_iter();
    let arguments = arguments.chain([text(folder), "-c".to_owned(), text(&main)]).collect();
    Launch { program: program("nginx"), arguments }
}
