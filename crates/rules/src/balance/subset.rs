//! Subsets of a cluster's endpoints by their metadata.

use std::{collections::HashMap, sync::Arc};

use super::{Member, spread::Spread};
use crate::{Cluster, Endpoints, Fallback, Labels, Subsets};

/// Most subsets of a cluster: each has tables of its own.
const SUBSETS_MAX: usize = 4096;

/// The subsets of one cluster.
#[derive(Clone, Debug)]
pub(super) struct SubsetSpreads {
    config: Arc<Subsets>,
    spreads: HashMap<Labels, Spread>,
    default: Option<Spread>,
}

impl SubsetSpreads {
    pub(super) fn new(
        config: &Arc<Subsets>,
        cluster: &Cluster,
        endpoints: &Endpoints,
        members: &[Member],
        slots: &mut usize,
    ) -> Self {
        let labels = |member: &Member| &endpoints.list[member.place as usize].labels;
        let mut groups: HashMap<Labels, Vec<Member>> = HashMap::new();
        for selector in &config.selectors {
            for member in members {
                let Some(key) = project(labels(member), &selector.keys) else { continue };
                if groups.len() < SUBSETS_MAX || groups.contains_key(&key) {
                    groups.entry(key).or_default().push(*member);
                }
            }
        }
        // Two selectors of the same keys would put each endpoint in twice.
        groups.values_mut().for_each(|group| group.dedup_by_key(|member| member.place));
        let spreads = groups
            .into_iter()
            .map(|(key, group)| (key, Spread::new(cluster, endpoints, &group, slots)))
            .collect();
        let default = (config.fallback == Fallback::Default
            || config.selectors.iter().any(|s| s.fallback == Some(Fallback::Default)))
        .then(|| {
            let has =
                |member: &&Member| config.default.iter().all(|pair| labels(member).contains(pair));
            let group: Vec<Member> = members.iter().filter(has).copied().collect();
            Spread::new(cluster, endpoints, &group, slots)
        });
        Self { config: Arc::clone(config), spreads, default }
    }

    /// The endpoints for what is asked; `None` when there are none.
    pub(super) fn find<'s>(
        &'s self,
        wanted: Option<&Labels>,
        all: &'s Spread,
    ) -> Option<&'s Spread> {
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else {
            return self.fall_back(self.config.fallback, all);
        };
        let mut wanted = Arc::clone(wanted);
        loop {
            if let Some(spread) = self.spreads.get(&wanted) {
                return Some(spread);
            }
            let keys = wanted.iter().map(|(key, _)| key);
            let selector = self.config.selectors.iter().find(|s| s.keys.iter().eq(keys.clone()));
            let fallback = selector.and_then(|selector| selector.fallback);
            match (fallback, selector) {
                (Some(Fallback::Keys), Some(selector)) => {
                    // Each round has fewer keys: the compiler has seen to that.
                    wanted = project(&wanted, &selector.fewer)?;
                }
                (fallback, _) => {
                    return self.fall_back(fallback.unwrap_or(self.config.fallback), all);
                }
            }
        }
    }

    fn fall_back<'s>(&'s self, fallback: Fallback, all: &'s Spread) -> Option<&'s Spread> {
        match fallback {
            Fallback::None | Fallback::Keys => None,
            Fallback::Any => Some(all),
            Fallback::Default => self.default.as_ref(),
        }
    }
}

/// The pairs of these keys, if all of them are there.
fn project(labels: &Labels, keys: &[Arc<str>]) -> Option<Labels> {
    let pair = |key: &Arc<str>| labels.iter().find(|(name, _)| name == key).cloned();
    keys.iter().map(pair).collect()
}
