//! The protocol in random interleavings: uploads, deletions, collections, crashes.
//!
//! The store around it is a few maps; [`Protocol`] is the one that runs in production. Every step
//! of every actor is one that the lock makes atomic there, and no more. What is checked after each
//! step: everything that a record leads to is stored.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::LazyLock,
};

use granary_testkit::Random;

use super::protocol::{Operation, Protocol, Reliance};
use crate::{format::ObjectKind, object_key::ObjectKey};

/// Names an object. Each refers to some with smaller numbers, always the same.
type Id = usize;

const OBJECTS: usize = 40;

/// Of them, those that refer to nothing.
const LEAVES: usize = 16;

const STEPS: usize = 600;

/// All objects, and what they refer to.
struct Universe {
    keys: Vec<ObjectKey>,
    references: Vec<Vec<Id>>,
    /// Each object and all below it, those below first.
    closures: Vec<Vec<Id>>,
}

static UNIVERSE: LazyLock<Universe> = LazyLock::new(|| {
    let mut universe = Universe { keys: Vec::new(), references: Vec::new(), closures: Vec::new() };
    for id in 0..OBJECTS {
        let digest = *blake3::hash(&id.to_le_bytes()).as_bytes();
        let is_leaf = id < LEAVES;
        let kind = if is_leaf { ObjectKind::Chunk } else { ObjectKind::Directory };
        universe.keys.push(ObjectKey::Object(kind, digest));
        let mut random = Random::new(id as u64);
        let count = if is_leaf { 0 } else { 1 + random.below(4) };
        let references: Vec<_> = (0..count).map(|_| random.below(id)).collect();
        let mut closure = Vec::new();
        for below in references.iter().flat_map(|below| &universe.closures[*below]) {
            if !closure.contains(below) {
                closure.push(*below);
            }
        }
        closure.push(id);
        universe.references.push(references);
        universe.closures.push(closure);
    }
    universe
});

fn key(id: Id) -> ObjectKey {
    UNIVERSE.keys[id]
}

fn references(id: Id) -> &'static [Id] {
    &UNIVERSE.references[id]
}

fn closure(root: Id) -> &'static [Id] {
    &UNIVERSE.closures[root]
}

/// The store, without the actors.
#[derive(Default)]
struct World {
    /// Which pack each object lies in.
    index: BTreeMap<Id, u32>,
    /// What was written and is not in the index yet.
    pending: BTreeSet<Id>,
    /// The pack that is appended to.
    pack: u32,
    /// Roots that were acknowledged and not deleted.
    records: BTreeSet<Id>,
    /// How many collections have ended.
    ended: u64,
}

impl World {
    fn commit(&mut self) {
        for id in std::mem::take(&mut self.pending) {
            self.index.insert(id, self.pack);
        }
    }

    fn check(&self, what: &str) {
        for root in &self.records {
            for id in closure(*root) {
                assert!(self.index.contains_key(id), "{what}: {id} below {root} is gone");
            }
        }
    }
}

/// What an actor found when it looked an object up.
#[derive(Clone, Copy)]
struct LookedUp {
    ended: u64,
    found: Found,
}

#[derive(Clone, Copy)]
enum Found {
    Nowhere,
    Pending,
    InPack(u32),
}

/// Brings a tree, and then a record of it.
struct Upload {
    operation: Operation,
    root: Id,
    left: VecDeque<Id>,
    looked_up: Option<LookedUp>,
    /// Relies on everything being there, and brings nothing.
    only_touches: bool,
    gives_up: bool,
    /// How often it is its turn and it does nothing: threads may stop at any point.
    rests: usize,
}

enum Next {
    Again,
    Done,
}

impl Upload {
    fn new(protocol: &mut Protocol, random: &mut Random, world: &World) -> Self {
        let root = LEAVES + random.below(OBJECTS - LEAVES);
        let only_touches = random.one_in(4) && world.index.contains_key(&root);
        let left = if only_touches {
            VecDeque::from([root])
        } else {
            closure(root).iter().copied().collect()
        };
        let operation = protocol.begin();
        let gives_up = random.one_in(6);
        Self { operation, root, left, looked_up: None, only_touches, gives_up, rests: 0 }
    }

    fn look_up(world: &World, id: Id) -> LookedUp {
        let found = if world.pending.contains(&id) {
            Found::Pending
        } else {
            world.index.get(&id).map_or(Found::Nowhere, |pack| Found::InPack(*pack))
        };
        LookedUp { ended: world.ended, found }
    }

    fn step(&mut self, protocol: &mut Protocol, world: &mut World) -> Next {
        let Some(id) = self.left.front().copied() else { return self.finish(protocol, world) };
        let Some(LookedUp { ended, found }) = self.looked_up.take() else {
            self.looked_up = Some(Self::look_up(world, id));
            return Next::Again;
        };
        let pack = match found {
            Found::Nowhere => Err(()),
            Found::Pending => Ok(None),
            Found::InPack(pack) => Ok(Some(pack)),
        };
        if let Ok(pack) = pack {
            if ended != world.ended {
                return Next::Again;
            }
            if protocol.touch(&key(id), pack, Reliance::Operation) {
                if pack.is_some() || world.pending.contains(&id) {
                    self.left.pop_front();
                }
                return Next::Again;
            }
        }
        if self.only_touches {
            protocol.end(self.operation);
            return Next::Done;
        }
        for below in references(id) {
            protocol.touch(&key(*below), None, Reliance::Operation);
        }
        protocol.touch(&key(id), None, Reliance::Operation);
        // As the log does: somebody else may have brought it.
        let is_there =
            world.index.get(&id).is_some_and(|pack| !protocol.is_condemned(&key(id), *pack));
        if !is_there {
            world.pending.insert(id);
        }
        self.left.pop_front();
        Next::Again
    }

    fn finish(&mut self, protocol: &mut Protocol, world: &mut World) -> Next {
        world.commit();
        if self.only_touches && !closure(self.root).iter().all(|id| world.index.contains_key(id)) {
            // What it touched was not whole before: nothing is promised.
            self.gives_up = true;
        }
        if !self.gives_up {
            world.records.insert(self.root);
        }
        protocol.end(self.operation);
        Next::Done
    }
}

/// A collection, step by step.
enum Collector {
    Roots {
        left: Vec<Id>,
    },
    Reliance {
        left: Vec<Id>,
    },
    Grey {
        left: Vec<Id>,
    },
    Condemning,
    /// Objects that are condemned where they lie, those that refer to others first.
    Removing {
        left: Vec<(Id, u32)>,
    },
    Moving {
        left: Vec<(Id, u32)>,
    },
}

impl Collector {
    fn begin(protocol: &mut Protocol, world: &mut World) -> Self {
        world.commit();
        world.pack += 1;
        protocol.start_marking(world.pack).expect("none is under way");
        Self::Roots { left: world.records.iter().copied().collect() }
    }

    /// Marks one object, and says what is to be marked next.
    fn mark(protocol: &mut Protocol, world: &World, id: Id, left: &mut Vec<Id>) {
        if protocol.mark(&key(id)) && world.index.contains_key(&id) {
            left.extend(references(id));
        }
    }

    fn step(self, protocol: &mut Protocol, world: &mut World) -> Option<Self> {
        match self {
            Self::Roots { mut left } => {
                if let Some(id) = left.pop() {
                    Self::mark(protocol, world, id, &mut left);
                    return Some(Self::Roots { left });
                }
                Some(Self::Reliance { left: world.index.keys().copied().collect() })
            }
            Self::Reliance { mut left } => match left.pop() {
                None => Some(Self::Grey { left: Vec::new() }),
                Some(id) => {
                    if protocol.is_relied_on(&key(id), 0) {
                        let mut below = vec![id];
                        while let Some(id) = below.pop() {
                            Self::mark(protocol, world, id, &mut below);
                        }
                    }
                    Some(Self::Reliance { left })
                }
            },
            Self::Grey { mut left } => {
                if let Some(id) = left.pop() {
                    Self::mark(protocol, world, id, &mut left);
                    return Some(Self::Grey { left });
                }
                let id_of = |grey| (0..OBJECTS).find(|id| key(*id) == grey).expect("one of them");
                let grey = protocol.take_grey().into_iter().map(id_of);
                let left: Vec<_> = grey.flat_map(references).copied().collect();
                Some(if left.is_empty() { Self::Condemning } else { Self::Grey { left } })
            }
            Self::Condemning => {
                if !protocol.condemn() {
                    return Some(Self::Grey { left: Vec::new() });
                }
                let condemned = world
                    .index
                    .iter()
                    .filter(|(id, pack)| protocol.is_condemned(&key(**id), **pack));
                Some(Self::Removing { left: condemned.map(|(id, pack)| (*id, *pack)).collect() })
            }
            // Greatest numbers refer to smaller ones.
            Self::Removing { mut left } => {
                if let Some((id, pack)) = left.pop() {
                    world.commit();
                    if world.index.get(&id) == Some(&pack) {
                        world.index.remove(&id);
                    }
                    return Some(Self::Removing { left });
                }
                let old = world.index.iter().filter(|(_, pack)| **pack < world.pack);
                Some(Self::Moving { left: old.map(|(id, pack)| (*id, *pack)).collect() })
            }
            Self::Moving { mut left } => {
                if let Some((id, pack)) = left.pop() {
                    if world.index.get(&id) == Some(&pack) {
                        assert!(protocol.is_marked(&key(id)), "{id} stays and is not marked");
                        world.index.insert(id, world.pack);
                    }
                    return Some(Self::Moving { left });
                }
                protocol.finish();
                world.ended += 1;
                None
            }
        }
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let (mut protocol, mut world) = (Protocol::new(seed), World::default());
    let mut uploads: Vec<Upload> = Vec::new();
    let mut collector: Option<Collector> = None;
    for step in 0..STEPS {
        match random.below(100) {
            0..4 if uploads.len() < 4 => {
                uploads.push(Upload::new(&mut protocol, &mut random, &world));
            }
            4..6 => {
                let records: Vec<_> = world.records.iter().copied().collect();
                if let Some(root) = records.get(random.below(records.len().max(1))) {
                    world.records.remove(root);
                }
            }
            6..9 if collector.is_none() => {
                collector = Some(Collector::begin(&mut protocol, &mut world));
            }
            9 if random.one_in(20) => {
                // A crash: what was not committed is gone, and so is whoever did something. What
                // was condemned and not removed is followed when the store opens.
                if matches!(collector, Some(Collector::Removing { .. })) {
                    let World { index, .. } = &mut world;
                    index.retain(|id, pack| !protocol.is_condemned(&key(*id), *pack));
                }
                world.pending.clear();
                uploads.clear();
                collector = None;
                world.ended = 0;
                protocol = Protocol::new(seed + step as u64);
            }
            10..60 if !uploads.is_empty() => {
                let number = random.below(uploads.len());
                let upload = &mut uploads[number];
                if upload.rests > 0 {
                    upload.rests -= 1;
                } else if let Next::Done = upload.step(&mut protocol, &mut world) {
                    uploads.swap_remove(number);
                } else if random.one_in(50) {
                    upload.rests = 1 + random.below(100);
                }
            }
            _ => collector = collector.and_then(|it| it.step(&mut protocol, &mut world)),
        }
        world.check(&format!("seed {seed}, step {step}"));
    }
}

/// `GRANARY_SEED` replays one run.
#[test]
fn whatever_a_record_leads_to_is_stored() {
    const RUNS: u64 = 3_000;
    match std::env::var("GRANARY_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => run(seed),
        None => (0..RUNS).for_each(run),
    }
}
