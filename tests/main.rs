//! Tests of the product as a whole: the house rules, and everything a user does, on the real binary.

mod access;
mod addons;
mod buildpacks;
mod builds;
mod config;
mod console;
mod credentials;
mod dockerfile;
mod errors;
mod export;
mod extensions;
mod faults;
mod health;
mod heroku;
mod hostile;
mod images;
mod isolation;
mod jobs;
mod load;
mod locks;
mod platform;
mod push;
mod reboot;
mod registry;
mod release;
mod rollouts;
mod run;
mod runs;
mod scaling;
mod sizes;
mod tcp;
mod terminal;
mod tidy;
mod upgrade;
mod volumes;

/// Waits for something that will come by itself. The limit only ends a test that has failed.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(300);
    while !holds() {
        assert!(std::time::Instant::now() < limit, "{what}: not within five minutes");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
