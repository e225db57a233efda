//! Files that are no part of the store.

use granary_castore::{Result, Severity};

use super::{
    Snapshot,
    report::{Collector, Effect, VerifyFinding},
};
use crate::{
    dead::DeadList,
    engine::Inner,
    open::SET_ASIDE_DIR,
    packs::{PACKS_DIR, PackId},
};

/// Reports files among the packs that are none of them, and what was set aside.
pub(super) fn find(engine: &Inner, snapshot: &Snapshot, collector: &Collector) -> Result<()> {
    let add = |severity: Severity, problem: String| {
        let (pack, effect, objects) = (None, Effect::None, Vec::new());
        collector.add(VerifyFinding { severity, pack, offset: 0, problem, effect, objects });
    };
    let names = engine.disk.list(PACKS_DIR)?;
    // Behind the list: a pack that was made meanwhile is known by now.
    let known = engine.packs.all();
    for name in names {
        let Some(id) = PackId::from_file_name(&name) else {
            if !DeadList::is_named(&name) {
                add(Severity::Warning, format!("{PACKS_DIR}/{name} is no pack"));
            }
            continue;
        };
        let is_known = known.iter().any(|(_, known)| *known == id)
            || snapshot.packs.iter().any(|pack| pack.id == id);
        if !is_known {
            let problem =
                format!("the index does not know of {}; reopen the store", id.file_name());
            add(Severity::Warning, problem);
        }
    }
    // If there is none, nothing was set aside.
    for name in engine.disk.list(SET_ASIDE_DIR).unwrap_or_default() {
        let problem = format!(
            "{SET_ASIDE_DIR}/{name} is kept for inspection; it is not needed and may be removed"
        );
        add(Severity::Info, problem);
    }
    Ok(())
}
