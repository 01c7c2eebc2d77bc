use builder::{packages::*, stack::*};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let home = std::path::PathBuf::from(&a[1]);
    let packages =
        PackageAccess::collect(&PackageSetting::default(), &Machine::here(), &home.join("packages")).unwrap();
    println!("{packages:#?}");
    let settings = StackSettings {
        layers: engine::LayerStore::open(&home.join("layers")).unwrap(),
        cache: home.join("cache"),
        packages,
        home,
        digest: |p| Ok(model::Digest::from_sha256(if p.ends_with("run") { [1; 32] } else { [2; 32] })),
    };
    let s = make(&settings, Make::IfMissing, &mut |l| println!("{l}")).unwrap();
    println!("{s:?} {}", open(&settings).unwrap().is_some());
}
