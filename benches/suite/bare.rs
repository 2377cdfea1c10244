//! Servers that do nothing but answer, to compare with: a constant, cloned for
//! every request.

mod layout;

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
};

use envoy_types::ext_authz::v3::pb as envoy;
use keystead::transport::pb::{
    CheckRequest, CheckResponse,
    authz_server::{Authz, AuthzServer},
};
use prost::Message;
use tonic::{Request, Response, Status, service::Routes};

pub(crate) use layout::Layout;

use crate::{
    Result,
    process::{Place, Process},
};

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// `keystead.v1.Authz/Check`, with the messages of Keystead.
    Keystead,
    /// Envoy's `Authorization/Check`, with the messages of the crate envoy-types,
    /// which have every field and own their strings.
    Envoy,
}

impl Speaks {
    const ALL: [Self; 2] = [Self::Keystead, Self::Envoy];

    fn name(self) -> &'static str {
        match self {
            Self::Keystead => "keystead",
            Self::Envoy => "envoy",
        }
    }

    fn routes(self, answer: &[u8]) -> Result<Routes> {
        Ok(match self {
            Self::Keystead => {
                Routes::new(AuthzServer::new(Constant(CheckResponse::decode(answer)?)))
            }
            Self::Envoy => {
                let constant = Constant(envoy::CheckResponse::decode(answer)?);
                Routes::new(envoy::AuthorizationServer::new(constant))
            }
        })
    }
}

/// Begins such a server as a process of its own, which answers with the message
/// in the file `answer`.
pub(crate) fn start(
    speaks: Speaks,
    layout: Layout,
    answer: &Path,
    place: Place,
) -> Result<(Process, SocketAddr)> {
    let mut command = place.command(std::env::current_exe()?)?;
    command.args(["bare", speaks.name(), &layout.to_string()]).arg(answer).stdout(Stdio::piped());
    let (process, addresses) =
        Process::serve(&mut command, |line| Some(vec![line.trim().parse().ok()?]))?;
    Ok((process, addresses[0]))
}

/// Is such a server, until it is killed.
pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let [speaks, layout, answer] = arguments else {
        return Err("bare takes a service, a layout and a file".into());
    };
    let speaks = Speaks::ALL.into_iter().find(|kind| kind.name() == speaks);
    let speaks = speaks.ok_or("bare answers as `keystead` or as `envoy`")?;
    let routes = speaks.routes(&fs::read(answer)?)?;
    layout.parse::<Layout>()?.serve((Ipv4Addr::LOCALHOST, 0).into(), &routes, |address| {
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{address}")?;
        stdout.flush()
    })
}

/// Answers everything with it.
#[derive(Debug)]
struct Constant<M>(M);

#[tonic::async_trait]
impl Authz for Constant<CheckResponse> {
    async fn check(
        &self,
        _: Request<CheckRequest>,
    ) -> std::result::Result<Response<CheckResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }
}

#[tonic::async_trait]
impl envoy::Authorization for Constant<envoy::CheckResponse> {
    async fn check(
        &self,
        _: Request<envoy::CheckRequest>,
    ) -> std::result::Result<Response<envoy::CheckResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }
}
