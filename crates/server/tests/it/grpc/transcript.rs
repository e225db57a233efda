//! The transcript of the original README, with clients that know the services through
//! reflection only: grpcurl asks for version v1alpha of it, buf for v1.

use super::{Server, tools};

/// `x86_64-linux` in base64, as the transcript shows it.
const DATA: &str = "eDg2XzY0LWxpbnV4";
/// Its digest in base64.
const DIGEST: &str = "KOM3/IHEx7YfInAnlJpAElYezq0Sxn9fRz7xuClwNfA=";

/// Both names of the service.
const BLOB_SERVICES: [&str; 2] = ["tvix.castore.v1.BlobService", "snix.castore.v1.BlobService"];

const SERVICES: [&str; 12] = [
    "granary.v1.IntegrityService",
    "granary.v1.RetentionService",
    "granary.v1.StoreService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "snix.castore.v1.BlobService",
    "snix.castore.v1.DirectoryService",
    "snix.store.v1.PathInfoService",
    "tvix.castore.v1.BlobService",
    "tvix.castore.v1.DirectoryService",
    "tvix.store.v1.PathInfoService",
];

fn data() -> String {
    format!(r#"{{"data": "{DATA}"}}"#)
}

fn digest() -> String {
    format!(r#"{{"digest": "{DIGEST}"}}"#)
}

/// JSON without its spaces, which each client sets in its own way.
fn dense(json: &str) -> String {
    json.chars().filter(|c| !c.is_whitespace()).collect()
}

/// The names of services, one a line.
fn listed(output: &str) -> Vec<&str> {
    let mut services: Vec<_> = output.lines().map(str::trim).filter(|s| !s.is_empty()).collect();
    services.sort_unstable();
    services
}

#[tokio::test]
async fn grpcurl() {
    let server = Server::start().await;
    let address = server.address.to_string();
    let list = tools::run("grpcurl", &["-plaintext", &address, "list"], "").await;
    assert_eq!(listed(&list), SERVICES);
    for service in BLOB_SERVICES {
        let call = async |method: &str, message: &str| {
            let method = format!("{service}/{method}");
            let arguments = ["-plaintext", "-d", message, &address, &method];
            dense(&tools::run("grpcurl", &arguments, "").await)
        };
        assert_eq!(call("Put", &data()).await, dense(&digest()), "{service}");
        assert_eq!(call("Read", &digest()).await, dense(&data()), "{service}");
        assert_eq!(call("Get", &digest()).await, dense(&data()), "{service}");
    }
}

#[tokio::test]
async fn grpcurl_sees_the_names_of_each_package() {
    let server = Server::start().await;
    let address = server.address.to_string();
    for (message, fields) in [
        ("tvix.store.v1.PathInfo", ".tvix.castore.v1.Node node = 1;"),
        ("snix.store.v1.PathInfo", ".snix.castore.v1.Entry entry = 1;"),
        ("snix.castore.v1.Entry", ".snix.castore.v1.DirectoryEntry directory = 1;"),
        ("tvix.castore.v1.StatBlobResponse", "bytes bao = 3;"),
    ] {
        let arguments = ["-plaintext", &address, "describe", message];
        let described = tools::run("grpcurl", &arguments, "").await;
        assert!(described.contains(fields), "{described}");
    }
}

#[tokio::test]
async fn buf_curl() {
    let server = Server::start().await;
    let base = format!("http://{}", server.address);
    let options = ["curl", "--protocol", "grpc", "--http2-prior-knowledge"];
    let list = [&options[..], &["--list-services", &base]].concat();
    assert_eq!(listed(&tools::run("buf", &list, "").await), SERVICES);
    for service in BLOB_SERVICES {
        let call = async |method: &str, message: &str| {
            let url = format!("{base}/{service}/{method}");
            let arguments = [&options[..], &["--data", message, &url]].concat();
            dense(&tools::run("buf", &arguments, "").await)
        };
        assert_eq!(call("Put", &data()).await, dense(&digest()), "{service}");
        assert_eq!(call("Read", &digest()).await, dense(&data()), "{service}");
        assert_eq!(call("Get", &digest()).await, dense(&data()), "{service}");
    }
}
