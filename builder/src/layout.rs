//! An image for the world outside: an OCI layout in one tar stream (OCI image spec, "Image Layout"), which skopeo and others read as
//! `oci-archive`.
//!
//! Layers are written as they are, uncompressed: their digest is their diffID, so nothing has to be put together beforehand.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use engine::LayerStore;
use model::{Digest, Image};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::{architecture, oci_config, tree};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const VERSION: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Of images that say none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Writes layers of `store`, laid over each other, as an image of `user` into the folder `layout`, to be known as `name`.
pub(crate) fn write_base(
    store: &LayerStore,
    layers: &[Digest],
    user: &str,
    (layout, name): (&Path, &str),
) -> io::Result<()> {
    let blobs = layout.join("blobs/sha256");
    tree::make_dir(&blobs, 0o755)?;
    let mut sizes = Vec::new();
    for layer in layers {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(blobs.join(layer.hex()))?);
        tree::write_tar(&store.path(layer), &mut file)?;
        sizes.push(file.into_inner().map_err(io::IntoInnerError::into_error)?.metadata()?.len());
    }
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "User": user, "Env": [format!("PATH={PATH}")] },
        "rootfs": { "type": "layers", "diff_ids": layers },
        // buildah compares steps by this: one entry a layer, or it finds none of its own again.
        "history": layers.iter().map(|layer| json!({ "created_by": layer })).collect::<Vec<_>>(),
    });
    let config = config.to_string().into_bytes();
    let manifest = manifest(layers.iter(), (&digest(&config), config.len()), &sizes).to_string().into_bytes();
    for document in [&config, &manifest] {
        fs::write(blobs.join(digest(document).hex()), document)?;
    }
    fs::write(layout.join("oci-layout"), VERSION)?;
    fs::write(layout.join("index.json"), index(&manifest, name).to_string())
}

/// What tells others of an image: everything but its layers.
#[derive(Debug)]
pub struct Documents {
    /// By which it is known elsewhere.
    pub manifest: Vec<u8>,
    /// Media type of the manifest.
    pub media_type: &'static str,
    /// Has the image's digest.
    pub config: Vec<u8>,
    /// Its layers and how many bytes each has, from below; of two with the same files only the first.
    pub layers: Vec<(Digest, u64)>,
}

/// What to say of `image`, whose layers are all in `store`, to those who have it from elsewhere than a layout: it is the same.
pub fn documents(store: &LayerStore, image: &Image) -> io::Result<Documents> {
    let mut sizes = Vec::new();
    for layer in &image.layers {
        sizes.push(tree::tar_size(&store.path(&layer.diff_id))?);
    }
    let config = oci_config(image, architecture());
    let layers = image.layers.iter().map(|layer| &layer.diff_id);
    let manifest = manifest(layers, (&image.digest, config.len()), &sizes).to_string().into_bytes();
    let mut known = BTreeSet::new();
    let layers = image.layers.iter().zip(sizes).filter(|(layer, _)| known.insert(&layer.diff_id));
    let layers = layers.map(|(layer, size)| (layer.diff_id.clone(), size)).collect();
    Ok(Documents { manifest, media_type: MANIFEST, config, layers })
}

/// Writes `image`, whose layers are all in `store`, to be known as `name`. The index comes first, so that whoever reads the stream
/// knows what the blobs are.
pub fn write_layout(store: &LayerStore, image: &Image, name: &str, writer: impl Write) -> io::Result<()> {
    let Documents { manifest, config, layers, .. } = documents(store, image)?;
    let mut tar = tar::Builder::new(writer);
    append(&mut tar, "oci-layout", VERSION)?;
    append(&mut tar, "index.json", index(&manifest, name).to_string().as_bytes())?;
    append(&mut tar, &blob(&digest(&manifest)), &manifest)?;
    append(&mut tar, &blob(&image.digest), &config)?;
    for (layer, size) in layers {
        append_header(&mut tar, &blob(&layer), size)?;
        tree::write_tar(&store.path(&layer), tar.get_mut())?;
        pad(tar.get_mut(), size)?;
    }
    tar.finish()
}

fn manifest<'a>(layers: impl Iterator<Item = &'a Digest>, (config, bytes): (&Digest, usize), sizes: &[u64]) -> Value {
    let layers = layers.zip(sizes);
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": config, "size": bytes },
        "layers": layers
            .map(|(layer, size)| json!({ "mediaType": LAYER, "digest": layer, "size": size }))
            .collect::<Vec<_>>(),
    })
}

fn index(manifest: &[u8], name: &str) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": MANIFEST,
            "digest": digest(manifest),
            "size": manifest.len(),
            "platform": { "architecture": architecture(), "os": "linux" },
            "annotations": { "org.opencontainers.image.ref.name": name },
        }],
    })
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> io::Result<()> {
    append_header(tar, path, bytes.len() as u64)?;
    tar.get_mut().write_all(bytes)?;
    pad(tar.get_mut(), bytes.len() as u64)
}

fn append_header(tar: &mut tar::Builder<impl Write>, path: &str, size: u64) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_path(path)?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(tree::EPOCH);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    tar.get_mut().write_all(header.as_bytes())
}

/// A tar file consists of blocks of 512 bytes.
fn pad(writer: &mut impl Write, size: u64) -> io::Result<()> {
    let missing = (512 - size % 512) % 512;
    io::copy(&mut io::Read::take(io::repeat(0), missing), writer).map(|_| ())
}
