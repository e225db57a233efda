//! Plans that were used lately.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{NarDigest, Provenance, nar_plan::NarPlan, node_record::NodeKey};

/// Most bytes of plans that are kept. A Linux source tree's plan takes a third of it.
pub const MAX_CACHED_PLAN_BYTES: usize = 64 << 20;

/// What a plan counts at least, so that the number of small ones is bounded too.
const MIN_PLAN_COST_BYTES: usize = 1 << 10;

/// The plans used last, at most [`MAX_CACHED_PLAN_BYTES`] of them.
#[derive(Debug, Default)]
pub(crate) struct PlanCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    plans: HashMap<NodeKey, Entry>,
    /// By time of last use, the longest ago first.
    by_use: BTreeMap<u64, NodeKey>,
    /// Time, counted in uses.
    now: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    plan: Arc<NarPlan>,
    /// Size and hash of the NAR, if they were looked up, and what says whether that still holds.
    nar: Option<(NarDigest, Provenance)>,
    used: u64,
}

impl PlanCache {
    pub(crate) fn get(&self, key: &NodeKey) -> Option<Arc<NarPlan>> {
        self.with_entry(key, |entry| Arc::clone(&entry.plan))
    }

    /// A plan, and what was noted of its NAR.
    pub(crate) fn get_nar(&self, key: &NodeKey) -> Option<(Arc<NarPlan>, NarDigest, Provenance)> {
        self.with_entry(key, |entry| {
            let (nar, provenance) = entry.nar.clone()?;
            Some((Arc::clone(&entry.plan), nar, provenance))
        })?
    }

    /// Notes size and hash of the NAR of a plan, if that is kept.
    pub(crate) fn note_nar(&self, key: &NodeKey, nar: NarDigest, provenance: Provenance) {
        self.with_entry(key, |entry| entry.nar = Some((nar, provenance)));
    }

    /// Uses an entry.
    fn with_entry<T>(&self, key: &NodeKey, with: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { plans, by_use, now, .. } = &mut *state;
        let entry = plans.get_mut(key)?;
        *now += 1;
        by_use.remove(&entry.used);
        by_use.insert(*now, *key);
        entry.used = *now;
        Some(with(entry))
    }

    /// Keeps a plan, and drops those unused the longest. One that would take the whole
    /// cache is not kept.
    pub(crate) fn insert(&self, key: NodeKey, plan: &Arc<NarPlan>) {
        let cost = cost(plan);
        if cost > MAX_CACHED_PLAN_BYTES {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.now += 1;
        let now = state.now;
        let entry = Entry { plan: Arc::clone(plan), nar: None, used: now };
        if let Some(previous) = state.plans.insert(key, entry) {
            state.by_use.remove(&previous.used);
            state.bytes -= self::cost(&previous.plan);
        }
        state.by_use.insert(now, key);
        state.bytes += cost;
        while state.bytes > MAX_CACHED_PLAN_BYTES {
            let Some((_, oldest)) = state.by_use.pop_first() else { break };
            if let Some(dropped) = state.plans.remove(&oldest) {
                state.bytes -= self::cost(&dropped.plan);
            }
        }
    }
}

fn cost(plan: &NarPlan) -> usize {
    plan.memory_bytes().max(MIN_PLAN_COST_BYTES)
}

#[cfg(test)]
mod tests {
    use granary_castore::{BlobDigest, Node};

    use super::*;

    fn key(number: u64) -> NodeKey {
        let digest = BlobDigest::of(b"x");
        NodeKey::of(&Node::File { digest, size_bytes: number, executable: false }).expect("a file")
    }

    fn plan(bytes: usize) -> Arc<NarPlan> {
        let literals = vec![0; bytes - size_of::<NarPlan>()].into();
        Arc::new(NarPlan::of_parts(literals, Vec::new(), 0))
    }

    #[test]
    fn keeps_the_ones_used_last_within_the_limit() {
        let cache = PlanCache::default();
        let quarter = plan(MAX_CACHED_PLAN_BYTES / 4);
        for number in 0..4 {
            cache.insert(key(number), &quarter);
        }
        assert!(cache.get(&key(0)).is_some());
        cache.insert(key(4), &quarter);
        assert!(cache.get(&key(0)).is_some(), "it was used after 1");
        assert!(cache.get(&key(1)).is_none());
        cache.insert(key(4), &quarter);
        assert!(cache.get(&key(2)).is_some(), "replacing a plan takes no more room");
        cache.insert(key(5), &plan(MAX_CACHED_PLAN_BYTES + 1));
        assert!(cache.get(&key(5)).is_none());
        assert!(cache.get(&key(2)).is_some(), "a plan that does not fit drops nothing");
    }

    #[test]
    fn small_plans_are_bounded_in_number() {
        let cache = PlanCache::default();
        let small = plan(size_of::<NarPlan>());
        let fit = (MAX_CACHED_PLAN_BYTES / MIN_PLAN_COST_BYTES) as u64;
        for number in 0..=fit {
            cache.insert(key(number), &small);
        }
        assert!(cache.get(&key(0)).is_none());
        assert!(cache.get(&key(1)).is_some());
        let state = cache.state.lock().expect("not poisoned");
        assert_eq!(state.plans.len() as u64, fit);
        assert_eq!(state.by_use.len() as u64, fit);
    }
}
