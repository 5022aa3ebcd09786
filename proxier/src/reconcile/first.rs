//! The first step: what the kernel holds is taken as it is, and everything is brought to what is wanted.

use tokio::time::Instant;

use super::Reconciler;
use crate::cluster::{ObjectKey, Service};
use crate::dataplane::leftovers::Leftover;
use crate::dataplane::{Dataplane, State, Target};

impl<D: Dataplane> Reconciler<D> {
    /// Reads everything, for the first time.
    pub(super) async fn adopt(&mut self) {
        let began = Instant::now();
        self.due.audit = began + self.timing.sync_period;
        let observed = self.dataplane.observe().await;
        self.read_for(began.elapsed());
        match observed {
            Ok(observed) => {
                self.status.observed(&observed);
                self.believed = Some(observed);
                self.status.observe_error = None;
            }
            Err(error) => self.cannot_read(error),
        }
    }

    /// Brings everything to what is wanted, in parts: a plan for all of it would need more memory
    /// than all that is kept.
    ///
    /// Sets and rules, the API server and the cluster DNS come before everything else, so that a
    /// new node can reach the one and resolve names while the rest is being programmed. What no
    /// service asks for comes last.
    pub(super) async fn converge_in_parts(&mut self) {
        /// Services in a part: some megabytes of operations, and few searches for stale flows.
        const PART: usize = 2048;
        let mut all = std::mem::take(&mut self.touched);
        all.extend(self.believed.iter().flat_map(State::targets));
        let left = self.believed.as_ref().map(|state| &state.leftovers);
        let left = |leftover| left.is_some_and(|leftovers| leftovers.contains(&leftover));
        self.touched = all
            .extract_if(.., |target| match target {
                Target::Set(_) => true,
                // Until everything is there, those of iptables mode do the work.
                Target::Firewall(family) => !left(Leftover::Iptables(*family)),
                _ => false,
            })
            .collect();
        let (first, rest): (Vec<_>, Vec<_>) = self.cluster.services().partition(|service| {
            let key = (&*service.key.namespace, &*service.key.name);
            let dns = service.ports.iter().any(|port| port.port == 53);
            key == ("default", "kubernetes") || (key.0 == "kube-system" && dns)
        });
        let keys = |part: &[&Service]| part.iter().map(|service| service.key.clone()).collect();
        let parts = std::iter::once(&*first).chain(rest.chunks(PART));
        let parts: Vec<Vec<ObjectKey>> = parts.map(keys).collect();
        for part in parts {
            let contributions = part.iter().filter_map(|key| self.desired.contribution(key));
            let targets = contributions.flat_map(|contribution| contribution.targets());
            self.touched.extend(targets.filter(|target| all.remove(target)));
            self.converge().await;
        }
        self.touched.extend(all);
    }
}
