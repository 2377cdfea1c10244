//! Servers that do nothing but answer, to compare with: a constant, cloned for
//! every request.

use std::{fs, io::Write as _, net::SocketAddr, path::Path, process::Stdio};

use envoy_types::ext_authz::v3::pb as envoy;
use keystead::transport::pb::{
    CheckRequest, CheckResponse,
    authz_server::{Authz, AuthzServer},
};
use prost::Message;
use tokio::{net::TcpListener, runtime::Builder};
use tonic::{
    Request, Response, Status,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};

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

/// The runtime that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    CurrentThread,
    /// For many threads, with one.
    OneWorker,
}

impl Runtime {
    pub(crate) const ALL: [Self; 2] = [Self::CurrentThread, Self::OneWorker];

    fn name(self) -> &'static str {
        match self {
            Self::CurrentThread => "current-thread",
            Self::OneWorker => "one-worker",
        }
    }

    fn build(self) -> std::io::Result<tokio::runtime::Runtime> {
        match self {
            Self::CurrentThread => Builder::new_current_thread(),
            Self::OneWorker => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(1);
                builder
            }
        }
        .enable_all()
        .build()
    }
}

/// Begins such a server as a process of its own, which answers with the message
/// in the file `answer`.
pub(crate) fn start(
    speaks: Speaks,
    runtime: Runtime,
    answer: &Path,
    place: Place,
) -> Result<(Process, SocketAddr)> {
    let mut command = place.command(std::env::current_exe()?)?;
    command.args(["bare", speaks.name(), runtime.name()]).arg(answer).stdout(Stdio::piped());
    let (process, addresses) =
        Process::serve(&mut command, |line| Some(vec![line.trim().parse().ok()?]))?;
    Ok((process, addresses[0]))
}

/// Is such a server, until it is killed.
pub(crate) fn serve(arguments: &[String]) -> Result<()> {
    let [speaks, runtime, answer] = arguments else {
        return Err("bare takes a service, a runtime and a file".into());
    };
    let speaks = Speaks::ALL.into_iter().find(|kind| kind.name() == speaks);
    let speaks = speaks.ok_or("bare answers as `keystead` or as `envoy`")?;
    let routes = speaks.routes(&fs::read(answer)?)?;
    let runtime = Runtime::ALL.into_iter().find(|kind| kind.name() == runtime);
    runtime.ok_or("there is no such runtime")?.build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{}", listener.local_addr()?)?;
        stdout.flush()?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Ok(Server::builder().add_routes(routes).serve_with_incoming(incoming).await?)
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
