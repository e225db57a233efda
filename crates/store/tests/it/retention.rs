//! What is kept and what goes: pins, last uses, references, deletion.

use std::{sync::Arc, time::Duration};

use granary_castore::{
    Collection, CollectionKind, Collector, Error, MemoryStore, RecordStore, RecordWrite, Result,
    Root, Survey, SweepOptions, Swept,
};
use granary_nix_formats::{StorePath, StorePathHash};
use granary_store::{
    DeleteOptions, Document, DocumentKind, GcOptions, GcReport, Keeper, LocalRetention, NarFacts,
    PathInfo, PathInfoService, Pin, PinTarget, Retention, Store, StoreOptions, UploadedNar, kinds,
};

use crate::support::{Tree, put_tree};

struct Fixture {
    memory: MemoryStore,
    store: Arc<Store>,
    retention: LocalRetention,
}

fn path(name: &str) -> StorePath {
    let mut bytes = [7; 20];
    for (place, byte) in bytes.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    StorePath::new(StorePathHash::from_bytes(bytes), name.to_owned()).expect("a valid name")
}

fn tree(name: &str) -> Tree {
    let own = Tree::file(format!("contents of {name}").repeat(10));
    Tree::directory([("own", own), ("shared", Tree::file("in all of them"))])
}

impl Fixture {
    fn new() -> Self {
        let memory = MemoryStore::default();
        let castore = Arc::new(memory.clone());
        let store = Arc::new(Store::new(castore.clone(), castore.clone(), StoreOptions::default()));
        let retention = LocalRetention::new(Arc::clone(&store), castore, GcOptions::default());
        Self { memory, store, retention }
    }

    /// Puts a path that refers to others.
    fn put(&self, name: &str, references: &[&str]) {
        let ingested = put_tree(&**self.store.castore(), &tree(name));
        let references: Vec<_> = references.iter().map(|name| path(name)).collect();
        let facts = NarFacts {
            nar_size: ingested.nar.nar_size,
            nar_hash: ingested.nar.nar_hash,
            signatures: Vec::new(),
            reference_names: references.clone(),
            deriver: Some(path(&format!("{name}.drv"))),
            ca: None,
        };
        self.store
            .put_path_info(PathInfo {
                store_path: path(name),
                node: ingested.node,
                references: references.iter().map(|path| *path.hash()).collect(),
                nar: Some(facts),
            })
            .expect("memory");
    }

    /// Lets a path be as if it was used last so many days ago.
    fn used_days_ago(&self, name: &str, days: u64) {
        self.store.flush_uses().expect("memory");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let then = now.expect("after 1970").as_secs() - days * 24 * 60 * 60;
        let write = RecordWrite {
            kind: kinds::LAST_USE,
            key: path(name).hash().as_bytes().to_vec().into(),
            value: Some(format!(r#"{{"v":1,"used_unix_s":{then}}}"#).into()),
        };
        self.memory.write_records(vec![write]).expect("memory");
    }

    fn collect(&self, options: GcOptions) -> GcReport {
        self.retention.collect_garbage(&options, &()).expect("nothing is damaged")
    }

    /// Names of the paths that are there; each is served, so all of it is there.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .store
            .path_infos()
            .map(|path_info| path_info.expect("readable"))
            .map(|path_info| {
                let served = self.store.served(path_info.store_path.hash()).expect("readable");
                assert!(served.is_some(), "{} is not whole", path_info.store_path);
                path_info.store_path.name().to_owned()
            })
            .collect();
        names.sort();
        names
    }

    fn blobs(&self) -> u64 {
        let mut collection = self.memory.begin_collection(CollectionKind::Survey).expect("memory");
        collection.survey().expect("memory").unused_objects
    }

    fn pin(&self, name: &str, target: PinTarget, expires_unix_s: Option<u64>) {
        let pin = Pin { name: name.to_owned(), target, created_unix_s: 5, expires_unix_s };
        self.retention.add_pin(pin).expect("it is stored");
    }
}

const NOTHING_OLD: GcOptions = GcOptions {
    dry_run: false,
    keep_for: Some(Duration::from_secs(30 * 24 * 60 * 60)),
    max_stored_bytes: None,
    max_unused_permille: None,
    bytes_per_s: None,
};

#[test]
fn what_was_used_lately_is_kept_with_all_that_it_refers_to() {
    let fixture = Fixture::new();
    fixture.put("libc-2", &[]);
    fixture.put("app-1", &["libc-2"]);
    fixture.put("old-1", &["libc-2"]);
    fixture.put("older-1", &["old-1"]);
    let age = || {
        for (name, days) in [("libc-2", 300), ("app-1", 29), ("old-1", 31), ("older-1", 400)] {
            fixture.used_days_ago(name, days);
        }
    };
    age();
    let before = fixture.blobs();
    let dry = fixture.collect(GcOptions { dry_run: true, ..NOTHING_OLD });
    assert_eq!((dry.kept_paths, dry.removed_paths, dry.dry_run), (2, 2, true));
    assert_eq!(fixture.names(), ["app-1", "libc-2", "old-1", "older-1"]);
    assert_eq!(fixture.blobs(), before, "nothing went");

    // Looking at them was a use.
    age();
    let report = fixture.collect(NOTHING_OLD);
    assert_eq!(report.packages, dry.packages);
    assert_eq!(report.stored_bytes_after, dry.stored_bytes_after);
    assert_eq!(report.removed_objects, dry.removed_objects);
    let packages: Vec<_> = report.packages.iter().map(|package| &*package.name).collect();
    assert_eq!(packages, ["older", "old"], "the largest first");
    let freed: u64 = report.packages.iter().map(|package| package.bytes).sum();
    assert_eq!(freed, report.stored_bytes_before - report.stored_bytes_after);
    assert_eq!(fixture.names(), ["app-1", "libc-2"]);
}

#[test]
fn whoever_is_asked_for_is_in_use() {
    let fixture = Fixture::new();
    fixture.put("asked-1", &[]);
    fixture.put("unasked-1", &[]);
    for name in ["asked-1", "unasked-1"] {
        fixture.used_days_ago(name, 100);
    }
    assert!(fixture.store.served(path("asked-1").hash()).expect("readable").is_some());
    fixture.collect(NOTHING_OLD);
    assert_eq!(fixture.names(), ["asked-1"]);
}

#[test]
fn pins_keep_closures_and_single_roots() {
    let fixture = Fixture::new();
    fixture.put("libc-2", &[]);
    fixture.put("app-1", &["libc-2"]);
    fixture.put("expired-1", &[]);
    fixture.put("loose-1", &[]);
    let loose = fixture.store.path_info(path("loose-1").hash()).expect("readable");
    let loose = Root::of(&loose.expect("put").node).expect("a directory");
    for name in ["libc-2", "app-1", "expired-1", "loose-1"] {
        fixture.used_days_ago(name, 100);
    }
    fixture.pin("app", PinTarget::Path(path("app-1")), None);
    fixture.pin("expired", PinTarget::Path(path("expired-1")), Some(6));
    fixture.pin("loose", PinTarget::Root(loose), Some(u64::MAX));
    assert_eq!(fixture.retention.pins().expect("readable").len(), 3);
    for name in ["libc-2", "app-1", "expired-1", "loose-1"] {
        // Pinning is a use.
        fixture.used_days_ago(name, 100);
    }
    let report = fixture.collect(NOTHING_OLD);
    assert_eq!((report.removed_paths, report.expired_pins), (2, 1));
    assert_eq!(fixture.names(), ["app-1", "libc-2"]);
    let directory = match loose {
        Root::Directory(digest) => fixture.store.directories().directory(&digest),
        Root::Blob(_) => panic!("it is a directory"),
    };
    assert!(directory.expect("readable").is_some(), "its contents are pinned");
    let names: Vec<_> =
        fixture.retention.pins().expect("readable").into_iter().map(|pin| pin.name).collect();
    assert_eq!(names, ["app", "loose"]);

    assert!(fixture.retention.remove_pin("app").expect("memory"));
    assert!(!fixture.retention.remove_pin("app").expect("memory"), "there is none any more");
    for name in ["libc-2", "app-1"] {
        fixture.used_days_ago(name, 100);
    }
    fixture.collect(NOTHING_OLD);
    assert_eq!(fixture.names(), [""; 0]);
}

#[test]
fn what_is_not_stored_cannot_be_pinned() {
    let fixture = Fixture::new();
    let pin = |name: &str, target| Pin {
        name: name.to_owned(),
        target,
        created_unix_s: 0,
        expires_unix_s: None,
    };
    let absent = Root::Blob(granary_castore::BlobDigest::of(b"absent"));
    fixture.put("there-1", &[]);
    for bad in [
        pin("x", PinTarget::Path(path("absent-1"))),
        pin("x", PinTarget::Root(absent)),
        pin("", PinTarget::Path(path("there-1"))),
        pin(&"x".repeat(256), PinTarget::Path(path("there-1"))),
        pin("line\nbreak", PinTarget::Path(path("there-1"))),
    ] {
        let error = fixture.retention.add_pin(bad.clone()).expect_err("it cannot be");
        assert!(matches!(error, Error::Invalid(_)), "{bad:?}: {error}");
    }
    assert_eq!(fixture.retention.pins().expect("readable"), []);
    let good = pin("a name", PinTarget::Path(path("there-1")));
    fixture.retention.add_pin(good.clone()).expect("it is there");
    assert_eq!(fixture.retention.pins().expect("readable"), [good]);
}

#[test]
fn the_least_recently_used_go_until_it_fits() {
    let fixture = Fixture::new();
    for (number, name) in ["a-1", "b-1", "c-1", "d-1", "e-1"].into_iter().enumerate() {
        fixture.put(name, &[]);
        fixture.used_days_ago(name, 10 + number as u64);
    }
    fixture.pin("oldest", PinTarget::Path(path("e-1")), None);
    fixture.used_days_ago("e-1", 20);
    let all = fixture.collect(GcOptions { dry_run: true, ..NOTHING_OLD });
    assert_eq!(all.removed_paths, 0);
    let max_stored_bytes = Some(all.stored_bytes_before * 7 / 10);
    let report = fixture.collect(GcOptions { max_stored_bytes, ..NOTHING_OLD });
    assert!(report.stored_bytes_after <= all.stored_bytes_before * 7 / 10);
    assert!(report.packages.iter().all(|package| package.bytes > 0), "{:?}", report.packages);
    assert_eq!(fixture.names(), ["a-1", "b-1", "e-1"]);
    let report = fixture.collect(GcOptions { max_stored_bytes: Some(1), ..NOTHING_OLD });
    assert_eq!(fixture.names(), ["e-1"], "what is pinned stays");
    assert!(report.stored_bytes_after > 1);
}

#[test]
fn uploads_and_documents_go_with_what_they_belong_to() {
    let fixture = Fixture::new();
    let upload = |name: &str| {
        let ingested = put_tree(&**fixture.store.castore(), &tree(name));
        let uploaded = UploadedNar {
            node: ingested.node,
            nar: ingested.nar,
            file_hash: ingested.nar.nar_hash,
            file_size: ingested.nar.nar_size,
            compression: "none".to_owned(),
            touched_unix_s: 0,
        };
        fixture
            .store
            .commit_uploaded_nar(
                fixture.store.castore().batch().expect("memory"),
                &format!("{name}.nar"),
                &uploaded,
            )
            .expect("memory");
    };
    let document = |kind, name: &str| {
        let mut batch = fixture.store.castore().batch().expect("memory");
        let contents = format!("{kind:?} {name}");
        let digest = batch.put_blob(contents.clone().into()).expect("memory");
        batch.commit().expect("memory");
        let (size_bytes, content_type) = (contents.len() as u64, "text/plain".to_owned());
        let document = Document { digest, size_bytes, content_type };
        fixture.store.put_document(kind, name.as_bytes(), &document).expect("memory");
    };
    for name in ["kept-1", "gone-1"] {
        upload(name);
        fixture.put(name, &[]);
        document(DocumentKind::Log, &path(&format!("{name}.drv")).base_name());
        document(DocumentKind::Listing, &path(name).hash().to_string());
    }
    upload("waiting-1");
    document(DocumentKind::Realisation, "sha256:x!out");
    document(DocumentKind::DebugInfo, "0123");
    let has_document = |kind, name: &str| {
        fixture.store.document(kind, name.as_bytes()).expect("readable").is_some()
    };
    fixture.used_days_ago("gone-1", 100);
    fixture.collect(NOTHING_OLD);
    assert_eq!(fixture.names(), ["kept-1"]);
    let is_uploaded = |name: &str| {
        fixture.store.touch_uploaded_nar(&format!("{name}.nar")).expect("readable").is_some()
    };
    assert!(is_uploaded("kept-1") && !is_uploaded("gone-1"));
    assert!(is_uploaded("waiting-1"), "its narinfo may come yet");
    assert!(has_document(DocumentKind::Listing, &path("kept-1").hash().to_string()));
    assert!(!has_document(DocumentKind::Listing, &path("gone-1").hash().to_string()));
    assert!(has_document(DocumentKind::Log, &path("kept-1.drv").base_name()));
    assert!(has_document(DocumentKind::Log, &path("gone-1.drv").base_name()), "it is new");
    assert!(has_document(DocumentKind::Realisation, "sha256:x!out"));
    assert!(has_document(DocumentKind::DebugInfo, "0123"));
    fixture.collect(GcOptions { keep_for: Some(Duration::ZERO), ..NOTHING_OLD });
    // Whatever is asked for in the same second is in use.
    assert!(has_document(DocumentKind::DebugInfo, "0123"));
}

#[test]
fn what_was_collected_is_not_taken_for_proved() {
    let fixture = Fixture::new();
    fixture.put("app-1", &[]);
    let path_info = fixture.store.path_info(path("app-1").hash()).expect("readable");
    let path_info = path_info.expect("put");
    assert!(fixture.store.served(path("app-1").hash()).expect("readable").is_some());
    fixture.used_days_ago("app-1", 100);
    fixture.collect(NOTHING_OLD);
    // The path info alone comes again, as it may over gRPC.
    fixture.store.put_path_info(path_info).expect("memory");
    assert_eq!(fixture.store.served(path("app-1").hash()).expect("readable"), None);
}

#[test]
fn deleting_is_refused_while_something_keeps_it() {
    let fixture = Fixture::new();
    fixture.put("libc-2", &[]);
    fixture.put("ssl-3", &["libc-2"]);
    fixture.put("app-1", &["ssl-3", "libc-2"]);
    fixture.put("other-1", &["libc-2"]);
    let delete = |names: &[&str], options: DeleteOptions| {
        let hashes: Vec<_> = names.iter().map(|name| *path(name).hash()).collect();
        fixture.retention.delete_paths(&hashes, options)
    };
    let plain = DeleteOptions::default();
    for (names, because) in [
        (&["libc-2"][..], "refer to it"),
        (&["ssl-3"], "app-1 refer to it"),
        (&["absent-1"], "is in the store"),
        (&["app-1", "libc-2"], "refer to it"),
    ] {
        let error = delete(names, plain).expect_err(because);
        assert!(
            matches!(error, Error::Invalid(_)) && error.to_string().contains(because),
            "{error}"
        );
    }
    assert_eq!(fixture.names().len(), 4, "nothing went");
    fixture.pin("app", PinTarget::Path(path("app-1")), None);
    let error = delete(&["app-1"], plain).expect_err("it is pinned");
    assert!(error.to_string().contains(r#"the pin "app" keeps it"#), "{error}");
    assert!(fixture.retention.remove_pin("app").expect("memory"));

    let closure = DeleteOptions { closure: true, force: false };
    let deleted = delete(&["app-1"], closure).expect("nothing keeps it");
    let names = |paths: &[StorePath]| -> Vec<_> {
        paths.iter().map(|path| path.name().to_owned()).collect()
    };
    assert_eq!(names(&deleted.paths), ["app-1", "ssl-3"], "referrers first");
    assert_eq!(names(&deleted.kept), ["libc-2"], "the other needs it");
    assert_eq!(fixture.names(), ["libc-2", "other-1"]);
    let forced = delete(&["libc-2"], DeleteOptions { closure: false, force: true });
    assert_eq!(names(&forced.expect("forced").paths), ["libc-2"]);
    let report = fixture.collect(NOTHING_OLD);
    assert!(report.removed_objects > 0, "now the space is free");
    assert_eq!(report.removed_paths, 0);
    assert_eq!(fixture.names(), ["other-1"]);
}

#[test]
fn deleting_what_was_just_uploaded_frees_it() {
    let fixture = Fixture::new();
    let ingested = put_tree(&**fixture.store.castore(), &tree("new-1"));
    let uploaded = UploadedNar {
        node: ingested.node,
        nar: ingested.nar,
        file_hash: ingested.nar.nar_hash,
        file_size: ingested.nar.nar_size,
        compression: "none".to_owned(),
        touched_unix_s: 0,
    };
    fixture
        .store
        .commit_uploaded_nar(fixture.store.castore().batch().expect("memory"), "new.nar", &uploaded)
        .expect("memory");
    fixture.put("new-1", &[]);
    fixture
        .retention
        .delete_paths(&[*path("new-1").hash()], DeleteOptions::default())
        .expect("nothing keeps it");
    fixture.collect(NOTHING_OLD);
    assert_eq!(fixture.blobs(), 0);
    assert_eq!(fixture.store.uploaded_nar("new.nar").expect("readable"), None);
}

#[test]
fn why_names_what_keeps_a_path() {
    let fixture = Fixture::new();
    fixture.put("libc-2", &[]);
    fixture.put("ssl-3", &["libc-2"]);
    fixture.put("app-1", &["ssl-3"]);
    fixture.used_days_ago("ssl-3", 50);
    fixture.pin("release", PinTarget::Path(path("app-1")), None);
    fixture.pin("other", PinTarget::Path(path("libc-2")), None);
    let why = fixture.retention.why(path("ssl-3").hash()).expect("readable").expect("there");
    assert_eq!(why.store_path, path("ssl-3"));
    let way = vec![path("app-1"), path("ssl-3")];
    let pin = Keeper::Pin { name: "release".to_owned(), path: way };
    assert_eq!(why.keepers, [pin, Keeper::Referrer(path("app-1"))]);
    assert!(why.own_bytes > 0 && why.referrers_used_unix_s > Some(why.used_unix_s));
    assert_eq!(why.closure_bytes, why.own_bytes, "what refers to it needs the rest, too");
    let why = fixture.retention.why(path("app-1").hash()).expect("readable").expect("there");
    assert!(why.closure_bytes > 2 * why.own_bytes, "{why:?}");
    assert_eq!(why.referrers_used_unix_s, None);
    assert_eq!(fixture.retention.why(path("absent-1").hash()).expect("readable"), None);
}

/// What somebody does while a collection is under way.
type Meanwhile = Arc<dyn Fn() + Send + Sync>;

/// Collects, and lets others do something just before that begins, and just after the rest was
/// condemned.
struct Interrupted {
    memory: MemoryStore,
    before: Meanwhile,
    once_condemned: Meanwhile,
}

struct InterruptedCollection {
    collection: Box<dyn Collection>,
    once_condemned: Meanwhile,
}

impl Collector for Interrupted {
    fn begin_collection(&self, kind: CollectionKind) -> Result<Box<dyn Collection>> {
        (self.before)();
        let collection = self.memory.begin_collection(kind)?;
        let once_condemned = Arc::clone(&self.once_condemned);
        Ok(Box::new(InterruptedCollection { collection, once_condemned }))
    }
}

impl Collection for InterruptedCollection {
    fn keep(&mut self, root: &Root) -> Result<u64> {
        self.collection.keep(root)
    }

    fn weigh(&mut self, root: &Root) -> Result<u64> {
        self.collection.weigh(root)
    }

    fn weigh_anew(&mut self) {
        self.collection.weigh_anew();
    }

    fn condemn(&mut self) -> Result<()> {
        self.collection.condemn()?;
        (self.once_condemned)();
        Ok(())
    }

    fn is_kept(&self, root: &Root) -> Result<bool> {
        self.collection.is_kept(root)
    }

    fn survey(&mut self) -> Result<Survey> {
        self.collection.survey()
    }

    fn sweep(&mut self, options: &SweepOptions<'_>) -> Result<Swept> {
        self.collection.sweep(options)
    }
}

impl Fixture {
    fn collect_interrupted(&self, before: Meanwhile, once_condemned: Meanwhile) -> GcReport {
        let collector = Interrupted { memory: self.memory.clone(), before, once_condemned };
        let store = Arc::clone(&self.store);
        LocalRetention::new(store, Arc::new(collector), GcOptions::default())
            .collect_garbage(&NOTHING_OLD, &())
            .expect("nothing is damaged")
    }
}

fn nothing() -> Meanwhile {
    Arc::new(|| ())
}

#[test]
fn what_was_used_until_a_collection_begins_does_not_go() {
    let fixture = Fixture::new();
    fixture.put("asked-1", &[]);
    fixture.used_days_ago("asked-1", 100);
    let store = Arc::clone(&fixture.store);
    let ask = move || {
        assert!(store.served(path("asked-1").hash()).expect("readable").is_some());
    };
    fixture.collect_interrupted(Arc::new(ask), nothing());
    assert_eq!(fixture.names(), ["asked-1"]);
}

#[test]
fn a_path_that_comes_again_while_it_is_to_go_stays() {
    /// Puts a path again as soon as marking has begun: it was found to go by then.
    struct PutsAgain<'a>(&'a Fixture, PathInfo);

    impl granary_store::GcObserver for PutsAgain<'_> {
        fn progress(&self, stage: granary_store::GcStage, done: u64, _total: u64) {
            if stage == granary_store::GcStage::Marking && done == 1 {
                self.0.store.put_path_info(self.1.clone()).expect("memory");
            }
        }
    }

    let fixture = Fixture::new();
    fixture.put("again-1", &[]);
    fixture.put("kept-1", &[]);
    let again = fixture.store.path_info(path("again-1").hash()).expect("readable").expect("put");
    fixture.used_days_ago("again-1", 100);
    fixture
        .retention
        .collect_garbage(&NOTHING_OLD, &PutsAgain(&fixture, again))
        .expect("nothing is damaged");
    assert_eq!(fixture.names(), ["again-1", "kept-1"]);
}

#[test]
fn what_comes_once_the_rest_is_condemned_stays() {
    let fixture = Fixture::new();
    fixture.put("kept-1", &[]);
    let store = Arc::clone(&fixture.store);
    let upload = move || {
        let ingested = put_tree(&**store.castore(), &tree("new-1"));
        let uploaded = UploadedNar {
            node: ingested.node,
            nar: ingested.nar,
            file_hash: ingested.nar.nar_hash,
            file_size: ingested.nar.nar_size,
            compression: "none".to_owned(),
            touched_unix_s: 0,
        };
        store
            .commit_uploaded_nar(store.castore().batch().expect("memory"), "new.nar", &uploaded)
            .expect("memory");
        let mut batch = store.castore().batch().expect("memory");
        let digest = batch.put_blob("a new log".into()).expect("memory");
        batch.commit().expect("memory");
        let content_type = "text/plain".to_owned();
        let document = Document { digest, size_bytes: 9, content_type };
        store.put_document(DocumentKind::Log, b"new.drv", &document).expect("memory");
    };
    fixture.collect_interrupted(nothing(), Arc::new(upload));
    assert!(fixture.store.touch_uploaded_nar("new.nar").expect("readable").is_some());
    let log = fixture.store.document(DocumentKind::Log, b"new.drv").expect("readable");
    assert!(log.is_some());
}
