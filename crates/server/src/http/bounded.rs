//! Caches of few and large things.

use std::hash::Hash;

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

/// A cache that holds up to `bytes`, which are what its things weigh, and is laid out for so many
/// `things`.
///
/// It is in one piece: cut into shards, each with a part of the room, it would not keep what is
/// larger than a shard.
pub(super) fn cache<K, V, W>(things: usize, bytes: u64, weighter: W) -> Cache<K, V, W>
where
    K: Eq + Hash,
    V: Clone,
    W: Weighter<K, V> + Clone,
{
    let options = OptionsBuilder::new()
        .shards(1)
        .estimated_items_capacity(things)
        .weight_capacity(bytes)
        .build()
        .expect("all that has no default is set");
    let (hashes, life) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
    Cache::with_options(options, weighter, hashes, life)
}
