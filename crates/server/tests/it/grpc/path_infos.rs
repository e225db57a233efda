//! Path infos, put, got, listed and computed.

use bytes::Bytes;
use granary_castore::{BlobDigest, Node};
use granary_nix_formats::{NarHash, Signature, StorePath, StorePathHash};
use granary_proto::{
    anonymous_node, castore, named_node, nar_digest, snix,
    store::{self, GetPathInfoRequest, ListPathInfoRequest, get_path_info_request::ByWhat},
};
use granary_store::{NarFacts, PathInfo};
use tonic::{Code, Status};

use super::{Server, all, refused};

fn path(number: u32) -> StorePath {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    StorePath::new(StorePathHash::from_bytes(hash), format!("path-{number}")).expect("a name")
}

/// A file whose contents nobody has put.
fn absent_file() -> Node {
    Node::File { digest: BlobDigest::of(b"absent"), size_bytes: 6, executable: false }
}

/// A path info that refers to itself and to one that is not there, of a NAR whose size is
/// not known: all of which is allowed.
pub(super) fn path_info(number: u32) -> store::PathInfo {
    let references = [path(number), path(1_000_000)];
    store::PathInfo::from(&PathInfo {
        store_path: path(number),
        node: absent_file(),
        references: references.iter().map(|path| *path.hash()).collect(),
        nar: Some(NarFacts {
            nar_size: 0,
            nar_hash: NarHash::from_bytes([3; 32]),
            signatures: vec![Signature::new("cache-1", [4; 64]).expect("a name")],
            reference_names: references.to_vec(),
            deriver: None,
            ca: None,
        }),
    })
}

fn by(hash: impl Into<Bytes>) -> GetPathInfoRequest {
    GetPathInfoRequest { by_what: Some(ByWhat::ByOutputHash(hash.into())) }
}

async fn get(server: &Server, number: u32) -> Result<store::PathInfo, Status> {
    let request = by(path(number).hash().as_bytes().to_vec());
    server.path_infos().get(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn what_was_put_comes_back() {
    let server = Server::start().await;
    let whole = path_info(1);
    let put = server.path_infos().put(whole.clone()).await.expect("valid").into_inner();
    assert_eq!(put, whole);
    assert_eq!(get(&server, 1).await.expect("it was put"), whole);

    let bare = store::PathInfo { narinfo: None, ..path_info(2) };
    server.path_infos().put(bare.clone()).await.expect("some clients send no narinfo");
    assert_eq!(get(&server, 2).await.expect("it was put"), bare);

    let mut changed = whole.clone();
    changed.narinfo.as_mut().expect("it is set").nar_size = 120;
    let mut newer =
        snix::store::path_info_service_client::PathInfoServiceClient::new(server.channel.clone());
    newer.put(changed.clone()).await.expect("valid");
    let request = by(path(1).hash().as_bytes().to_vec());
    assert_eq!(newer.get(request).await.expect("it was put").into_inner(), changed);
}

#[tokio::test]
async fn requests_name_a_hash() {
    let server = Server::start().await;
    refused(get(&server, 1).await, Code::NotFound, "there is no path info of ");
    let nothing = server.path_infos().get(GetPathInfoRequest { by_what: None }).await;
    refused(nothing, Code::InvalidArgument, "by_output_hash: it must be set");
    let long = server.path_infos().get(by(vec![0; 32])).await;
    refused(long, Code::InvalidArgument, "by_output_hash: it has 32 bytes instead of 20");
}

#[tokio::test]
async fn bad_path_infos_are_refused_by_field() {
    type Change = fn(&mut store::PathInfo);
    fn narinfo(path_info: &mut store::PathInfo) -> &mut store::NarInfo {
        path_info.narinfo.as_mut().expect("it is set")
    }
    let cases: [(Change, &str); 12] = [
        (|info| info.node = None, "node: it must be set"),
        (|info| info.node = Some(named_node("no-path", &absent_file())), "node.file.name: "),
        (|info| info.references[0] = vec![0; 19].into(), "references[0]: it has 19 bytes"),
        (|info| narinfo(info).nar_sha256 = vec![0; 20].into(), "narinfo.nar_sha256: "),
        (|info| narinfo(info).reference_names.truncate(1), "narinfo.reference_names: "),
        (|info| narinfo(info).reference_names.swap(0, 1), "narinfo.reference_names[0]: "),
        (|info| narinfo(info).reference_names[1] = "x".to_owned(), "narinfo.reference_names[1]: "),
        (
            |info| narinfo(info).signatures[0].data = vec![0; 9].into(),
            "narinfo.signatures[0].data: ",
        ),
        (|info| narinfo(info).signatures[0].name.clear(), "narinfo.signatures[0].name: "),
        (
            |info| narinfo(info).deriver = Some(store::StorePath::default()),
            "narinfo.deriver.digest: ",
        ),
        (
            |info| {
                narinfo(info).ca = Some(store::nar_info::Ca { r#type: 99, digest: Bytes::new() });
            },
            "narinfo.ca.type: ",
        ),
        (
            |info| narinfo(info).ca = Some(store::nar_info::Ca { r#type: 4, digest: Bytes::new() }),
            "narinfo.ca.digest: it has 0 bytes instead of 32",
        ),
    ];
    let server = Server::start().await;
    for (change, start) in cases {
        let mut message = path_info(1);
        change(&mut message);
        refused(server.path_infos().put(message).await, Code::InvalidArgument, start);
        refused(get(&server, 1).await, Code::NotFound, "there is no path info of ");
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_leaves_nothing() {
    let server = Server::start().await;
    let mut message = path_info(1);
    message.references = vec![vec![0; 20].into(); 200_000];
    let put = server.path_infos().put(message).await;
    refused(put, Code::ResourceExhausted, "the request: ");
    refused(get(&server, 1).await, Code::NotFound, "there is no path info of ");
}

#[tokio::test]
async fn a_list_has_all_of_them_once() {
    let server = Server::start().await;
    let list = async || {
        let list = server.path_infos().list(ListPathInfoRequest {}).await;
        all(list.expect("headers").into_inner()).await.expect("it ends well")
    };
    assert!(list().await.is_empty());
    let mut expected = Vec::new();
    // One full page, then more than two.
    for count in [256, 600] {
        for number in u32::try_from(expected.len()).expect("few")..count {
            let info = path_info(number);
            server.path_infos().put(info.clone()).await.expect("valid");
            expected.push(info);
        }
        assert!(list().await == expected, "of {count}");
    }
}

#[tokio::test]
async fn a_nar_is_computed_from_its_node() {
    let server = Server::start().await;
    server.put(b"hello", 5).await;
    let file = |contents: &[u8]| Node::File {
        digest: BlobDigest::of(contents),
        size_bytes: contents.len() as u64,
        executable: false,
    };
    let calculate = async |node: castore::Node| {
        let mut client = server.path_infos();
        client.calculate_nar(node).await.map(tonic::Response::into_inner)
    };
    let nar = calculate(named_node("", &file(b"hello"))).await.expect("it is stored");
    let nar = nar_digest(&nar).expect("valid");
    assert_eq!(nar.nar_size, 120);
    // By real Nix: printf hello > f; nix-hash --type sha256 --base32 f
    assert_eq!(
        nar.nar_hash.to_nix_string(),
        "sha256:0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa"
    );

    let absent = calculate(named_node("", &file(b"absent"))).await;
    refused(absent, Code::NotFound, "not all contents");
    let named = calculate(named_node("name", &file(b"hello"))).await;
    refused(named, Code::InvalidArgument, "node.file.name: ");
    let unset = castore::Node { node: None };
    assert!(anonymous_node(unset.clone()).is_err());
    refused(calculate(unset).await, Code::InvalidArgument, "node: it must be set");
}
