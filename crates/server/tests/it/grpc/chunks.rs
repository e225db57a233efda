//! The chunks that Stat lists.

use std::sync::Arc;

use bytes::Bytes;
use granary_proto::castore::{StatBlobRequest, StatBlobResponse};

use super::{Server, divided::Divided, noise};

async fn stat(server: &Server, digest: &Bytes, send_chunks: bool) -> StatBlobResponse {
    let request = StatBlobRequest { digest: digest.clone(), send_chunks, send_bao: false };
    server.blobs().stat(request).await.expect("it is stored").into_inner()
}

#[tokio::test]
async fn chunks_are_the_blob_in_order() {
    let store = Divided::into(100_000);
    let contents = noise(3 << 20);
    let digest = store.put(&contents);
    let server = Server::over(Arc::new(store)).await;

    let known = stat(&server, &digest, true).await;
    assert_eq!(known.chunks.len(), contents.len().div_ceil(100_000));
    let mut joined = Vec::new();
    for chunk in &known.chunks {
        let data = server.read(&chunk.digest).await.expect("chunks can be read");
        assert_eq!(data.len() as u64, chunk.size);
        joined.extend_from_slice(&data);
        assert!(stat(&server, &chunk.digest, true).await.chunks.is_empty(), "a chunk has none");
    }
    assert!(joined == contents);
    assert!(stat(&server, &digest, false).await.chunks.is_empty(), "nobody asked");
}

#[tokio::test]
async fn small_blobs_are_sent_whole() {
    let store = Divided::into(1000);
    let small = store.put(&noise(1 << 20));
    let larger = store.put(&noise((1 << 20) + 1));
    let server = Server::over(Arc::new(store)).await;
    assert!(stat(&server, &small, true).await.chunks.is_empty());
    assert_eq!(stat(&server, &larger, true).await.chunks.len(), 1049);
}

#[tokio::test]
async fn a_list_too_long_for_a_message_is_left_out() {
    // 20 bytes each make a reply of just under 4 MiB, which a client that raises no limit
    // receives; 16 bytes each would pass it.
    for (chunk_bytes, listed) in [(20, 104_858), (16, 0)] {
        let store = Divided::into(chunk_bytes);
        let digest = store.put(&noise(2 << 20));
        let server = Server::over(Arc::new(store)).await;
        assert_eq!(stat(&server, &digest, true).await.chunks.len(), listed);
    }
}
