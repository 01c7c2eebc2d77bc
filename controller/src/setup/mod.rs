//! What an app says about itself (`app.json`, `heroku.yml`).

mod check;

pub use check::check;
