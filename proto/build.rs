//! Compiles the .proto files with protox, so that no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "causeway/wire/v1/handshake.proto",
        "causeway/wire/v1/stanza.proto",
        "causeway/content/v1/content.proto",
        "causeway/directory/v1/directory.proto",
        "causeway/routing/v1/routing.proto",
        "causeway/media/v1/media.proto",
    ];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let services = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(services)
        .build_server(services)
        .bytes(".causeway")
        .compile_fds(descriptors)?;
    Ok(())
}
