//! `keystead health`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tonic::Code;

use super::{
    Failure, GlobalOptions, OTHER,
    check::{ServerArgs, no_grpc},
    print,
};
use crate::transport::{
    code_name,
    health_pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
};

const EXAMPLES: &str = "\
Exit codes:
  0   SERVING
  12  the service cannot be reached, or does not speak gRPC
  1   anything else

Names of services:
  (none)              can answer honestly and usefully now
  keystead.v1.Authz   the same, for the check service
  liveness            the process can make progress; for liveness and start-up probes
  store               the store answers; for dashboards, not for routing

Example:
  keystead health --service liveness";

/// Ask a running service whether it serves.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct HealthArgs {
    /// The name to ask about.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: HealthArgs, options: GlobalOptions) -> Result<ExitCode, Failure> {
    let server = args.server.url(&options)?;
    let channel = args.server.connect(&server).await?;
    let request = HealthCheckRequest { service: args.service.clone() };
    let status = match HealthClient::new(channel).check(request).await {
        Ok(response) => response.into_inner().status(),
        Err(status) if status.code() == Code::NotFound => {
            let name = args.service;
            return Err(Failure::new(format!(
                "{server} knows no service `{name}`; `keystead health --help` lists the names"
            )));
        }
        Err(status) => {
            let (code, message) = (code_name(status.code()), status.message());
            return Err(no_grpc(&server, &status)
                .unwrap_or_else(|| Failure::new(format!("{server} answered {code}: {message}"))));
        }
    };
    let word = status.as_str_name();
    if options.json {
        print(format_args!("{}\n", json!({"service": args.service, "status": word})))?;
    } else {
        print(format_args!("{word}\n"))?;
    }
    Ok(if status == ServingStatus::Serving { ExitCode::SUCCESS } else { OTHER.into() })
}
