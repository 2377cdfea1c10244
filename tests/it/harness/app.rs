//! The service in the process of its test, on real sockets.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hyper_util::rt::TokioIo;
use keystead::transport::health_pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use keystead::{
    app::{App, Listeners, Role, Stop, open_store},
    config::Config,
    tasks::Tasks,
    time::Clock,
    transport::pb::{CheckRequest, CheckResponse, authz_client::AuthzClient},
};
use tokio::{net::TcpStream, sync::oneshot};
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

use super::{DEADLINE, admin::Admin, beside, keys::Key};

/// A service that runs until it is stopped, or its test ends.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) grpc: SocketAddr,
    pub(crate) admin: Admin,
    /// Address of the control listener, if there is one.
    pub(crate) control: Option<SocketAddr>,
    /// Address of `/auth`: on its own listener, or on the admin listener.
    pub(crate) auth: SocketAddr,
    channel: Channel,
    stop: Option<oneshot::Sender<Stop>>,
    running: Tasks,
}

/// Number of connections a channel has made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connects(Arc<AtomicUsize>);

impl Connects {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Service {
    /// A service whose store may be down.
    pub(crate) async fn start(config: &Config) -> Self {
        let listeners = Listeners::bind(config, None).await.unwrap();
        let opened = open_store(config).await.unwrap();
        let built = App::build(config, listeners, opened, Clock::System);
        let app = Box::pin(built).await.unwrap();
        let [grpc, admin, control, auth] = Role::ALL.map(|role| app.address(role));
        let (grpc, admin) = (grpc.unwrap(), Admin(admin.unwrap()));
        let auth = auth.unwrap_or(admin.0);
        let (stop, told) = oneshot::channel();
        let running = Tasks::here();
        // A service whose test has dropped it goes on: others may still use it.
        let told = async {
            match told.await {
                Ok(stop) => stop,
                Err(_) => std::future::pending().await,
            }
        };
        running.spawn("service", app.run(told));
        let (channel, _) = channel_to(grpc).await;
        Self { grpc, admin, control, auth, channel, stop: Some(stop), running }
    }

    /// A service whose store has answered.
    pub(crate) async fn ready(config: &Config) -> Self {
        let service = Self::start(config).await;
        service.admin.until_ready().await;
        service
    }

    /// The channel that [`Service::check`] uses.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) async fn check(&self, request: CheckRequest) -> Result<CheckResponse, Status> {
        check_over(self.channel(), request).await
    }

    /// Checks a key and nothing more.
    pub(crate) async fn check_key(&self, key: &Key) -> Result<CheckResponse, Status> {
        self.check(presenting(&key.text)).await
    }

    /// Checks a key in the background and waits until its lookup is in flight: with one
    /// permit, a hanging store then has none left.
    pub(crate) async fn occupy_the_store(&self, key: &Key) {
        beside(check_over(self.channel(), presenting(&key.text)));
        self.admin.until_metric("keystead_store_in_flight", 1.0).await;
    }

    /// Health status of a name.
    pub(crate) async fn health(&self, name: &str) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest { service: name.to_owned() };
        let answer = HealthClient::new(self.channel()).check(request).await?;
        Ok(answer.into_inner().status())
    }

    /// Tells it to stop, and does not wait for it.
    pub(crate) fn stop(&mut self, how: Stop) {
        self.stop.take().expect("stopped only once").send(how).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        assert!(self.running.stop(DEADLINE).await, "it is still running");
    }
}

/// A channel with a connection, and how often it connects from then on and did
/// so far.
pub(crate) async fn channel_to(address: SocketAddr) -> (Channel, Connects) {
    let connects = Connects::default();
    let counted = connects.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let counted = counted.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            counted.0.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    (endpoint.connect_with_connector(connector).await.unwrap(), connects)
}

pub(crate) async fn check_over(
    channel: Channel,
    request: CheckRequest,
) -> Result<CheckResponse, Status> {
    let answer = AuthzClient::new(channel).check(request).await?;
    Ok(answer.into_inner())
}

/// A request that presents a credential and needs nothing.
pub(crate) fn presenting(api_key: &str) -> CheckRequest {
    CheckRequest { api_key: api_key.to_owned(), ..CheckRequest::default() }
}
