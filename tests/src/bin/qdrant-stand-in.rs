//! The stand-in as a process of its own, to be killed, frozen and started again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use mainstay_tests::stand_in::StandIn;

/// `qdrant-stand-in STORAGE [ADDRESS [API_KEY]]`: serves until it is killed; prints its address.
#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(storage) = args.next().map(PathBuf::from) else {
        eprintln!("usage: qdrant-stand-in STORAGE [ADDRESS [API_KEY]]");
        return ExitCode::from(2);
    };
    let address = args.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let served = async {
        let address: SocketAddr = address.parse()?;
        let server = StandIn::open(&storage)?.with_api_key(args.next());
        let listener = tokio::net::TcpListener::bind(address).await?;
        println!("{}", listener.local_addr()?);
        server.serve(listener).await
    };
    match served.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("qdrant-stand-in: {error}");
            ExitCode::FAILURE
        }
    }
}
