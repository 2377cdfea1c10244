//! `keystead check`

use std::{
    error::Error,
    io::{self, BufRead, IsTerminal},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tonic::{
    Code, Request, Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use super::{Failure, GlobalOptions, OTHER, note, print, scope};
use crate::transport::pb::{CheckRequest, CheckResponse, Freshness, authz_client::AuthzClient};

/// How the exit codes differ, so that a script can tell a bad key from an
/// outage.
const UNAUTHENTICATED: u8 = 10;
const PERMISSION_DENIED: u8 = 11;
const UNAVAILABLE: u8 = 12;

const EXIT_CODES: &str = "\
Exit codes:
  0   the key is valid and may do what was asked
  10  the key is not valid (UNAUTHENTICATED)
  11  the key may not do it (PERMISSION_DENIED)
  12  no answer: nothing is said about the key (UNAVAILABLE)
  1   anything else

Examples:
  keystead check ks_live_… --scope read
  pass show api-key | keystead check - --server https://keys.example.net";

/// Ask a running service about a key.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct CheckArgs {
    /// The key. With `-`, or without it, the first line of stdin.
    #[arg(value_name = "KEY", default_value = "-", hide_default_value = true)]
    key: SecretString,
    /// A scope that the key must have been granted. May be repeated.
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<String>,
    /// The address of the client, for keys that are restricted to networks.
    #[arg(long, value_name = "IP")]
    client_ip: Option<IpAddr>,
    /// The service that asks, for keys that are restricted to audiences.
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which service to ask, and how long to wait.
#[derive(Debug, Clone, Args)]
pub(super) struct ServerArgs {
    /// The service, as http://HOST:PORT or https://HOST:PORT [default: listen.grpc].
    #[arg(long = "server", value_name = "URL")]
    url: Option<String>,
    /// How long to wait for an answer.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(super) async fn run(args: CheckArgs, options: GlobalOptions) -> Result<ExitCode, Failure> {
    let api_key = presented(&args.key)?;
    let server = args.server.url(&options)?;
    let channel = args.server.connect(&server).await?;
    let request = Request::new(CheckRequest {
        api_key: api_key.expose_secret().to_owned(),
        required_scopes: args.scopes,
        client_ip: args.client_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        audience: args.audience.unwrap_or_default(),
    });
    match AuthzClient::new(channel).check(request).await {
        Ok(response) => allowed(&response.into_inner(), options.json),
        Err(status) => match no_grpc(&server, &status) {
            Some(failure) => Err(failure),
            None => refused(&status, options.json),
        },
    }
}

/// Why a call was not answered as gRPC at all, if that is so: the port is not that of a
/// gRPC service, or the connection broke. Nothing is said about a key.
pub(super) fn no_grpc(url: &str, status: &Status) -> Option<Failure> {
    let cause = match status.source() {
        Some(source) => root_cause(source),
        // tonic has no type for this one.
        None if status.message().starts_with("grpc-status header missing") => {
            "it answers, but not as gRPC".to_owned()
        }
        None => return None,
    };
    let message = format!(
        "{url} gave no gRPC answer: {cause}; is `keystead serve` running there, and is this the \
         address of its `listen.grpc`?"
    );
    Some(Failure { message, code: UNAVAILABLE })
}

fn presented(key: &SecretString) -> Result<SecretString, Failure> {
    if key.expose_secret() != "-" {
        return Ok(key.clone());
    }
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        note("Type the key and press return:");
    }
    let first = stdin.lines().next().transpose()?;
    Ok(first.unwrap_or_default().into())
}

fn allowed(answer: &CheckResponse, as_json: bool) -> Result<ExitCode, Failure> {
    let expires_at = answer
        .expires_at
        .and_then(|end| Timestamp::new(end.seconds, end.nanos).ok())
        .map(|end| end.to_string());
    let evidence = answer.evidence.unwrap_or_default();
    let freshness = Freshness::try_from(evidence.freshness).unwrap_or_default().as_str_name();
    let freshness = freshness.trim_start_matches("FRESHNESS_");
    if as_json {
        let age = evidence.age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        let record = json!({
            "code": "OK",
            "key_id": answer.key_id,
            "principal": answer.principal,
            "scopes": answer.scopes,
            "metadata": answer.metadata,
            "expires_at": expires_at,
            "freshness": freshness,
            "age_seconds": age.as_secs_f64(),
            "revision": evidence.revision,
        });
        print(format_args!("{record}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let scopes = if answer.scopes.is_empty() { "none".into() } else { answer.scopes.join(" ") };
    let expires_at = expires_at.unwrap_or_else(|| "never".to_owned());
    print(format_args!(
        "valid\n  key        {}\n  principal  {}\n  scopes     {scopes}\n  expires    {expires_at}\n",
        answer.key_id, answer.principal,
    ))?;
    for (name, value) in &answer.metadata {
        print(format_args!("  {name}={value}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn refused(status: &Status, as_json: bool) -> Result<ExitCode, Failure> {
    let info = status.get_details_error_info();
    // A proxy on the way may refuse a call too, and knows nothing of the key.
    let ours = info.as_ref().is_some_and(|info| info.domain == "keystead");
    let (word, code) = match status.code() {
        Code::Unauthenticated if ours => ("not valid", UNAUTHENTICATED),
        Code::PermissionDenied if ours => ("not allowed", PERMISSION_DENIED),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ("no answer", UNAVAILABLE),
        _ => ("error", OTHER),
    };
    let reason = info.as_ref().map_or_else(
        || crate::transport::code_name(status.code()).to_owned(),
        |info| info.reason.clone(),
    );
    let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    if as_json {
        let record = json!({
            "code": crate::transport::code_name(status.code()),
            "reason": reason,
            "message": status.message(),
            "facts": info.map(|info| info.metadata),
            "retry_after_seconds": retry_after.map(|delay| delay.as_secs_f64()),
        });
        print(format_args!("{record}\n"))?;
    } else {
        print(format_args!("{word}: {reason}\n  {}\n", status.message()))?;
    }
    Ok(code.into())
}

/// ` --server URL` for an address that is not the default, else nothing.
pub(super) fn server_flag(listening: SocketAddr) -> String {
    let default = crate::config::Config::default().listen.grpc;
    if listening == default { String::new() } else { format!(" --server {}", url_of(listening)) }
}

/// The URL by which a listener on this machine is reached.
pub(super) fn url_of(mut listening: SocketAddr) -> String {
    if listening.ip().is_unspecified() {
        listening.set_ip(match listening.ip() {
            IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        });
    }
    format!("http://{listening}")
}

impl ServerArgs {
    /// The service to ask: the one that was named, or the one that the same
    /// settings would start here.
    pub(super) fn url(&self, options: &GlobalOptions) -> Result<String, Failure> {
        match &self.url {
            Some(url) if url.contains("://") => Ok(url.clone()),
            Some(address) => Ok(format!("http://{address}")),
            None => Ok(url_of(options.load(Vec::new())?.listen.grpc)),
        }
    }

    /// Connects. A service that cannot be reached is exit code 12: nothing is
    /// said about a key.
    pub(super) async fn connect(&self, url: &str) -> Result<Channel, Failure> {
        let bad_url = |error: tonic::transport::Error| {
            Failure::new(format!("{url} is no URL of a service ({error}); write http://HOST:PORT"))
        };
        let mut endpoint = Endpoint::from_shared(url.to_owned()).map_err(bad_url)?;
        if url.starts_with("https://") {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(bad_url)?;
        }
        endpoint.timeout(self.timeout).connect_timeout(self.timeout).connect().await.map_err(
            |error| {
                let cause = root_cause(&error);
                let message =
                    format!("cannot reach {url}: {cause}; is `keystead serve` running there?");
                Failure { message, code: UNAVAILABLE }
            },
        )
    }
}

fn root_cause(mut error: &dyn Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
