//! The program itself, as a user runs it, with PostgreSQL.

use std::{fmt::Display, fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use keystead::transport::health_pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use prost::Message;
use tempfile::TempDir;

use super::{
    free_address,
    process::{Process, User, cpu_time, run},
};
use crate::{
    Result,
    grpc::{Channel, framed},
    keystead::{Counted, program},
    process::{Place, busy},
};

const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A folder to run the program in, and its settings.
#[derive(Debug)]
pub(crate) struct Program {
    folder: TempDir,
    /// Names of the environment with their values.
    settings: Vec<(String, String)>,
    place: Place,
}

/// A service that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    process: Process,
    /// Where it will serve gRPC.
    pub(crate) grpc: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

impl Program {
    /// With a secret, and a store.
    pub(crate) fn new(secret: &str, store: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("secret");
        fs::write(&file, secret)?;
        let program = Self { folder, settings: Vec::new(), place: Place::Anywhere };
        Ok(program.with("KEYS__SECRET_FILE", file.display()).with("STORE__URL", store))
    }

    /// With another setting, such as `FILL__BATCH_MAX`.
    pub(crate) fn with(mut self, name: &str, value: impl Display) -> Self {
        self.settings.push((format!("KEYSTEAD_{name}"), value.to_string()));
        self
    }

    /// On these cores.
    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = place;
        self
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Brings the schema of its store up to date.
    pub(crate) fn migrate(&self) -> Result<()> {
        run(&self.command(&["migrate"])?, User::Ourselves).map(drop)
    }

    /// Starts the service, and does not wait until it serves.
    pub(crate) fn serve(&self) -> Result<Service> {
        let (grpc, admin) = (free_address()?, free_address()?);
        let (listen, also) = (grpc.to_string(), admin.to_string());
        let command = self.command(&["serve", "--listen", &listen, "--admin", &also])?;
        let log = self.path("log");
        let process = Process::start(&command, User::Ourselves, &log)?;
        Ok(Service { process, grpc, admin, log })
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut words = self.place.words()?;
        words.push(program().display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(arguments).current_dir(self.folder.path());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

impl Service {
    /// Fails with what it has logged when it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        if self.process.has_ended()? {
            return Err(format!("the service has ended: {}", self.log()?).into());
        }
        Ok(())
    }

    /// Whether it says that the service of that name is SERVING, and can be reached.
    pub(crate) async fn is_serving(&self, name: &str) -> Result<bool> {
        let request = framed(&HealthCheckRequest { service: name.to_owned() })?;
        let answer = Channel::connect(self.grpc).await?.call(HEALTH, request).await?;
        Ok(HealthCheckResponse::decode(answer.message)?.status() == ServingStatus::Serving)
    }

    /// What it has counted so far.
    pub(crate) fn counted(&self) -> Result<Counted> {
        Counted::at(self.admin)
    }

    /// The same, to the nanosecond, of itself alone.
    pub(crate) fn busy(&self) -> Result<Duration> {
        busy(self.process.id())
    }

    pub(crate) fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The CPU time that it has used so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        cpu_time(self.process.id())
    }
}
