//! Whether the NAR of a path is what its path info says.

use granary_castore::{Chain, Error, Result, Severity};
use granary_nix_formats::{StorePath, fingerprint};

use super::Collector;
use crate::{
    NarDigest, NarFacts, PathInfo, Store, VerifyOptions, kinds, nar_digest_record,
    narinfo_upload::check_content_address, node_record::NodeKey, served::check_facts,
};

/// Renders the NAR of a path whose contents are all there, and checks everything that is said
/// of it.
pub(super) fn check(
    store: &Store,
    options: &VerifyOptions,
    collector: &Collector,
    path_info: &PathInfo,
) -> Result<()> {
    let path = &path_info.store_path;
    let error = |problem: String| collector.of_path(Severity::Error, path, problem);
    let rendered = store.plan(&path_info.node).and_then(|plan| match plan {
        Some(plan) => plan.digest(store.blobs()),
        None => Ok(None),
    });
    let nar = match rendered {
        Ok(Some(nar)) => nar,
        // It has been deleted meanwhile, or it was told what is missing.
        Ok(None) => return Ok(()),
        Err(failure @ Error::Unavailable(_)) => return Err(failure),
        Err(problem) => {
            collector.lock().damaged_paths.insert(path.clone());
            error(format!("its NAR cannot be rendered: {}", Chain(&problem)));
            return Ok(());
        }
    };
    collector.lock().nar_count += 1;
    remembered(store, path_info, &nar, &error)?;
    if let Some(facts) = &path_info.nar {
        match check_facts(facts, &nar) {
            Ok(()) => said(store, options, collector, path, facts, &nar),
            Err(problem) => error(problem),
        }
    }
    Ok(())
}

/// Holds what is remembered as proved against it.
fn remembered(
    store: &Store,
    path_info: &PathInfo,
    nar: &NarDigest,
    error: &dyn Fn(String),
) -> Result<()> {
    let Some(key) = NodeKey::of(&path_info.node) else { return Ok(()) };
    let Some(value) = store.records().record(kinds::NAR_DIGEST, key.as_bytes())? else {
        return Ok(());
    };
    match nar_digest_record::decode(&value) {
        Ok(remembered) if remembered == *nar => {}
        Ok(remembered) => error(format!(
            "its NAR has {} bytes and hash {}, and what is remembered of it is {} and {}",
            nar.nar_size, nar.nar_hash, remembered.nar_size, remembered.nar_hash
        )),
        Err(problem) => error(Chain(&problem).to_string()),
    }
    Ok(())
}

/// Checks content address and signatures.
fn said(
    store: &Store,
    options: &VerifyOptions,
    collector: &Collector,
    path: &StorePath,
    facts: &NarFacts,
    nar: &NarDigest,
) {
    if let Some(ca) = &facts.ca
        && let Err(problem) = check_content_address(ca, path, &facts.reference_names, &nar.nar_hash)
    {
        collector.of_path(Severity::Error, path, Chain(&problem).to_string());
    }
    let message = fingerprint(path, &nar.nar_hash, nar.nar_size, &facts.reference_names);
    let own = store.public_key();
    for signature in &facts.signatures {
        let keys = options.public_keys.iter().map(|key| (key, Severity::Error));
        // The store signs anew what it serves: one that is wrong does no harm.
        let keys = keys.chain(own.as_ref().map(|key| (key, Severity::Warning)));
        for (key, severity) in keys {
            if key.name() != signature.name {
                continue;
            }
            collector.lock().signature_count += 1;
            if !key.verify(message.as_bytes(), signature) {
                let problem = format!("the signature by {} is not valid", signature.name);
                collector.of_path(severity, path, problem);
            }
        }
    }
}
