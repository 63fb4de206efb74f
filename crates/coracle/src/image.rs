//! `coracle image`: the node's image store, with or without a running cluster.

use anyhow::{Context, Result};
use coracle_runtime_wasm::ImageStore;

use crate::cli;
use crate::data_dir::DataDir;

/// Runs one of the image commands.
pub async fn run(command: cli::Image) -> Result<()> {
    match command {
        cli::Image::Import { file, name, data_dir } => {
            let store = ImageStore::open(&DataDir::open(&data_dir)?.wasm())?;
            let image = store
                .import(&file, &name)
                .with_context(|| format!("cannot import {}", file.display()))?;
            println!("{name} {} ({} bytes)", image.digest, image.size_bytes);
        }
        cli::Image::List { data_dir } => {
            let store = ImageStore::open(&DataDir::open(&data_dir)?.wasm())?;
            println!("{:<40} {:<20} {:>12}", "NAME", "DIGEST", "BYTES");
            for image in store.list()? {
                let digest: String = image.digest.chars().take(19).collect();
                for name in &image.references {
                    println!("{name:<40} {digest:<20} {:>12}", image.size_bytes);
                }
            }
        }
    }
    Ok(())
}
