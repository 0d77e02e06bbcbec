//! One worker's way to endpoints: whose turn it is, how many connections there are, dialling.
//!
//! In:    a cluster, and what the connection or request knows.
//! Out:   an [`Upstream`], or why there is none.
//! Never: connects to this proxy itself.

use std::{cell::RefCell, collections::HashMap, ops::Deref, sync::Arc};

use foldhash::fast::RandomState;
use sluis_rules::{Address, Discovery, Draw, EndpointAddress, Turns};

use super::{
    ConnectContext, ConnectError, Pick, Upstream,
    dial::dial,
    lines::{Held, Lines},
};
use crate::{
    config::{Backend, Config},
    conn::Io,
    stats::Counter,
    worker::Worker,
};

/// Opens a connection outside of all limits: for health checks.
///
/// # Errors
///
/// Those of [`Dialer::dial`].
pub(crate) async fn open(
    backend: &Backend,
    pick: &Pick,
    context: &ConnectContext<'_>,
) -> Result<Io, ConnectError> {
    Ok(dial(backend, pick, context).await?.0)
}

/// The turns of one worker, by cluster: of which balancer they are, and where they stand.
#[derive(Debug, Default)]
struct Balance(RefCell<HashMap<usize, (u64, Turns), RandomState>>);

impl Balance {
    /// Forgets all turns: the clusters may be others now.
    fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}

/// A worker that connects to endpoints.
#[derive(Debug)]
pub struct Dialer {
    worker: Worker,
    balance: Balance,
    pub(crate) lines: Lines,
}

/// The worker below.
impl Deref for Dialer {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.worker
    }
}

impl Dialer {
    /// Makes a worker able to connect.
    pub(crate) fn new(worker: Worker) -> Self {
        Self { worker, balance: Balance::default(), lines: Lines::default() }
    }

    /// Takes over a newer configuration. Connections see it at their next request.
    pub(crate) fn publish(&self, config: Arc<Config>) {
        self.worker.publish(config);
        self.balance.forget();
        self.lines.forget_idle();
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    ///
    /// [`ConnectError::NoEndpoint`], [`ConnectError::NoOriginalDestination`],
    /// [`ConnectError::Dropped`] and [`ConnectError::Loop`].
    pub fn pick(
        &self,
        backend: &Arc<Backend>,
        context: &ConnectContext<'_>,
    ) -> Result<Pick, ConnectError> {
        for (_, millionths) in &backend.endpoints.drops {
            if self.random().below(1_000_000) < u64::from(*millionths) {
                let is_unconditional = *millionths >= 1_000_000;
                let cluster = Arc::clone(&backend.name);
                return Err(ConnectError::Dropped { cluster, is_unconditional });
            }
        }
        if let Discovery::OriginalDst { port_override, .. } = backend.discovery {
            return self.original(backend, port_override, context);
        }
        let choice = backend.choice();
        let picked = {
            let mut all = self.balance.0.borrow_mut();
            // A worker starts its turns at random, so that workers do not move in step.
            let new = || (choice.number, Turns::new(self.random().next()));
            let (number, turns) = all.entry(Arc::as_ptr(backend) as usize).or_insert_with(new);
            if *number != choice.number {
                (*number, *turns) = new();
            }
            let &ConnectContext { hash, labels, attempt, spurned, .. } = context;
            let mut draw =
                Draw { random: self.random().next(), hash, labels, attempt, spurned, turns };
            let in_flight =
                |at: usize| backend.hosts[at].as_ref().map_or(0, |host| host.requests());
            choice.balancer.pick(&mut draw, in_flight)
        };
        let address =
            picked.ok().and_then(|place| match &backend.endpoints.list.get(place)?.address {
                EndpointAddress::Fixed(address) => Some((place, address.clone())),
                EndpointAddress::Name { .. } => None,
            });
        let Some((place, address)) = address else {
            self.stats().inc(Counter::UpstreamNoHost);
            return Err(ConnectError::NoEndpoint { cluster: Arc::clone(&backend.name) });
        };
        let host = backend.hosts[place].clone();
        let endpoint = Some((Arc::clone(&backend.endpoints), place));
        Ok(Pick { address, endpoint, host, named: None })
    }

    fn original(
        &self,
        backend: &Backend,
        port_override: Option<u16>,
        context: &ConnectContext<'_>,
    ) -> Result<Pick, ConnectError> {
        let Some(mut address) = context.original_dst else {
            self.stats().inc(Counter::UpstreamNoHost);
            return Err(ConnectError::NoOriginalDestination { cluster: Arc::clone(&backend.name) });
        };
        if let Some(port) = port_override {
            address.set_port(port);
        }
        if self.peek_config().is_own(address) {
            self.stats().inc(Counter::UpstreamLoops);
            return Err(ConnectError::Loop { address });
        }
        Ok(Pick::plain(Address::Socket(address)))
    }

    /// Connects to a chosen endpoint, within the cluster's connect timeout.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Io`], [`ConnectError::Timeout`] and [`ConnectError::Tls`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what was opened.
    pub async fn dial(
        &self,
        backend: &Arc<Backend>,
        pick: Pick,
        context: &ConnectContext<'_>,
        held: Option<Held>,
    ) -> Result<Upstream, ConnectError> {
        let waited = backend.connect_timeout;
        let dialled = tokio::time::timeout(waited, dial(backend, &pick, context)).await;
        let (io, local) = match dialled {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                self.stats().inc(Counter::UpstreamCxConnectFail);
                return Err(error);
            }
            Err(_) => {
                self.stats().inc(Counter::UpstreamCxConnectTimeout);
                return Err(ConnectError::Timeout { address: pick.address, waited });
            }
        };
        self.stats().inc(Counter::UpstreamCxTotal);
        Ok(Upstream { io, local, pick, _held: held })
    }

    /// Chooses an endpoint and connects to it, for a connection that is proxied as TCP.
    ///
    /// # Errors
    ///
    /// [`ConnectError`].
    pub async fn connect(
        &self,
        backend: &Arc<Backend>,
        context: &ConnectContext<'_>,
    ) -> Result<Upstream, ConnectError> {
        let pick = self.choose(backend, context).await?;
        let host = pick.host.as_ref();
        let group = &backend.group;
        let Some(permit) = group.connection(&backend.limits, context.priority, host, false) else {
            self.stats().inc(Counter::UpstreamCxOverflow);
            let cluster = Arc::clone(&backend.name);
            return Err(ConnectError::Overflow { cluster, what: "connections" });
        };
        let told = pick.clone();
        let dialled = self.dial(backend, pick, context, Some(Held::of(permit))).await;
        match &dialled {
            Ok(_) => told.reached(backend, true),
            Err(error) => told.failed(backend, matches!(error, ConnectError::Timeout { .. })),
        }
        dialled
    }
}
