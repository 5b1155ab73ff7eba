//! The state that all requests share, and the permits for work that would delay other requests.

use super::HttpConfig;
use super::admin::Reloads;
use super::audit::Audit;
use super::bound::Bound;
use super::files::{ExtraFile, ExtraFiles};
use super::probe::Responses;
use super::publish::Publishing;
use super::readiness::Readiness;
use super::state::States;
use crate::access::Access;
use crate::hub::Hub;
use crate::limits::budget::Exhausted;
use crate::limits::connections::{Clients, ClientsConfig};
use crate::sync::replaceable::Replaceable;
use std::sync::{Arc, OnceLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The state that all requests share.
pub struct AppState {
    /// The channels, the segments and the store.
    pub hub: Arc<Hub>,
    /// The access control: keys, private channels and edge secrets.
    pub access: Access,
    /// The permits that each client holds.
    pub clients: Arc<Clients>,
    pub(super) config: Replaceable<HttpConfig>,
    pub(super) files: ExtraFiles,
    pub(super) bound: OnceLock<Bound>,
    pub(super) publishing: Publishing,
    pub(super) responses: Responses,
    pub(super) readiness: Readiness,
    pub(super) states: States,
    pub(super) audit: Audit,
    /// The requests to read the settings again.
    pub reloads: Reloads,
    /// One permit for each large response that is being built.
    builds: Arc<Semaphore>,
    /// One permit for each request for a stream over HTTP/2.
    pub(super) streams: Arc<Semaphore>,
}

impl AppState {
    /// Creates the HTTP layer for a hub, with at most `streams_max` streams over HTTP/2.
    pub fn new(
        hub: Arc<Hub>,
        config: HttpConfig,
        access: Access,
        clients: Clients,
        streams_max: usize,
    ) -> Self {
        let publishing = Publishing::new(&config);
        let files = ExtraFiles::new(&config.files);
        let config = Replaceable::new(config);
        let (clients, responses) = (Arc::new(clients), Responses::default());
        let readiness = Readiness::default();
        let states = States::default();
        let streams = Arc::new(Semaphore::new(streams_max.min(Semaphore::MAX_PERMITS)));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let builds = Arc::new(Semaphore::new((cores / 2).max(1)));
        Self {
            publishing,
            hub,
            access,
            clients,
            config,
            files,
            bound: OnceLock::new(),
            responses,
            readiness,
            states,
            audit: Audit::default(),
            reloads: Reloads::default(),
            builds,
            streams,
        }
    }

    /// Replaces the settings and the limits of the clients. The memory for publish bodies keeps its
    /// size, and the length of responses stays, because the origins of one store share it.
    pub fn reload(&self, mut config: HttpConfig, clients: ClientsConfig) {
        let current = self.config();
        config.segment_bytes = current.segment_bytes;
        self.publishing.reload(config.publish_rates);
        self.clients.reload(clients);
        self.config.replace(config);
    }

    /// Takes the base URLs of the public listeners, and files that could not be made before these
    /// were known. Only the first call counts.
    pub fn set_bound(&self, urls: Vec<String>, files: &[ExtraFile]) {
        self.bound.get_or_init(|| Bound { urls, files: ExtraFiles::new(files) });
    }

    /// Records whether connections can be accepted; `fault` is the error if they cannot.
    pub fn note_accept(&self, fault: Option<&std::io::Error>) {
        self.readiness.accepted(fault);
    }

    pub(super) fn config(&self) -> Arc<HttpConfig> {
        self.config.get()
    }

    /// The time after which a stream that has sent nothing sends a comment.
    pub fn heartbeat(&self) -> std::time::Duration {
        self.config().heartbeat
    }

    /// The longest time for which a client may leave its response unread.
    pub fn write_timeout(&self) -> std::time::Duration {
        self.config().write_timeout
    }

    /// Drops unused entries of the rate limits and state bodies that no request is using.
    pub fn sweep(&self) {
        self.publishing.sweep();
        self.states.sweep();
    }

    /// Waits for a permit to read many events and to build a response from them. The permits are
    /// few, so that some processors are always left for publishes and streams. Reading a store on
    /// another machine needs no permit (`None`), because this process only waits for it.
    pub(super) async fn permit_to_read(&self) -> Result<Option<OwnedSemaphorePermit>, Exhausted> {
        match self.hub.shares_store() {
            true => Ok(None),
            false => self.permit_to_build(None).await.map(Some),
        }
    }

    /// Returns the permit that a request already has, or waits for one to build its response.
    pub(super) async fn permit_to_build(
        &self,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<OwnedSemaphorePermit, Exhausted> {
        if let Some(permit) = permit {
            return Ok(permit);
        }
        let permit = self.builds.clone().acquire_owned();
        let permit = tokio::time::timeout(self.hub.store_timeout(), permit).await;
        permit.ok().and_then(Result::ok).ok_or(Exhausted)
    }
}
