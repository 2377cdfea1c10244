//! Servers that do nothing but answer, to compare with: a constant, cloned for
//! every request.

use std::{fs, net::SocketAddr, path::Path};

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
    process::{Place, Process, free_address},
};

/// What such a server answers: `keystead.v1.Authz/Check` with the messages of Keystead, or
/// Envoy's `Authorization/Check` with those of the crate envoy-types, which have every
/// field and own their strings.
pub(crate) const SERVICES: [&str; 2] = ["keystead", "envoy"];

/// The runtime that it has: one for the calling thread, or one for many with one worker.
pub(crate) const RUNTIMES: [&str; 2] = ["current-thread", "one-worker"];

/// Begins such a server as a process of its own, which answers with the message
/// in the file `answer`.
pub(crate) fn start(
    service: &str,
    runtime: &str,
    answer: &Path,
    place: Place,
) -> Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let mut command = place.command(std::env::current_exe()?, None)?;
    command.args(["bare", service, runtime]).arg(answer).arg(address.to_string());
    let mut process = Process::start(&mut command, &answer.with_extension("log"))?;
    process.until_it_listens(address)?;
    Ok((process, address))
}

/// Is such a server, until it is killed.
pub(crate) fn serve(arguments: &[&str]) -> Result<()> {
    let &[service, runtime, answer, address] = arguments else {
        return Err("bare takes a service, a runtime, a file and an address".into());
    };
    let answer = fs::read(answer)?;
    let routes = if service == SERVICES[0] {
        Routes::new(AuthzServer::new(Constant(CheckResponse::decode(&*answer)?)))
    } else {
        let answer = Constant(envoy::CheckResponse::decode(&*answer)?);
        Routes::new(envoy::AuthorizationServer::new(answer))
    };
    let mut runtime = if runtime == RUNTIMES[0] {
        Builder::new_current_thread()
    } else {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1);
        builder
    };
    runtime.enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
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
