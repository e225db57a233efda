//! Generates messages, clients and servers from `protos/`. protox compiles them, so that no
//! protoc is needed.

use std::{env, fs, io, path::PathBuf};

use prost::Message;

const TVIX: [&str; 2] = ["tvix/castore/v1/castore.proto", "tvix/store/v1/store.proto"];
const SNIX: [&str; 2] = ["snix/castore/v1/castore.proto", "snix/store/v1/store.proto"];
const GRANARY: [&str; 3] =
    ["granary/v1/store.proto", "granary/v1/retention.proto", "granary/v1/integrity.proto"];

/// What snix has renamed, and the Rust type of it. The rest of its messages kept their
/// names.
const RENAMED: [(&str, &str); 4] = [
    (".snix.castore.v1.Entry", "crate::castore::Node"),
    (".snix.castore.v1.DirectoryEntry", "crate::castore::DirectoryNode"),
    (".snix.castore.v1.FileEntry", "crate::castore::FileNode"),
    (".snix.castore.v1.SymlinkEntry", "crate::castore::SymlinkNode"),
];

/// What encodes and decodes messages.
const CODEC: &str = "crate::WireCodec";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=protos");
    let out_dir = env::var_os("OUT_DIR").map(PathBuf::from);
    let out_dir = out_dir.ok_or_else(|| io::Error::other("cargo did not set OUT_DIR"))?;

    let all = protox::compile([&TVIX[..], &SNIX, &GRANARY].concat(), ["protos"]);
    let all = all.map_err(io::Error::other)?;
    fs::write(out_dir.join("descriptors.bin"), all.encode_to_vec())?;

    let served = protox::compile([&TVIX[..], &GRANARY].concat(), ["protos"]);
    let served = served.map_err(io::Error::other)?;
    tonic_prost_build::configure().bytes(".").codec_path(CODEC).compile_fds(served)?;

    // The messages of snix are those of tvix, byte for byte: only clients are made, over
    // the types of tvix. The server answers the newer names with the same services.
    let mut newer = tonic_prost_build::configure()
        .build_server(false)
        .codec_path(CODEC)
        .extern_path(".snix.castore.v1", "crate::castore")
        .extern_path(".snix.store.v1", "crate::store");
    for (message, rust_type) in RENAMED {
        newer = newer.extern_path(message, rust_type);
    }
    newer.compile_fds(protox::compile(SNIX, ["protos"]).map_err(io::Error::other)?)
}
