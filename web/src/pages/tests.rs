//! Every page, filled with text that must never become HTML.

use serde::Serialize;

use super::access::Access;
use super::activity::Activity;
use super::addon::AddonPage;
use super::addons::Addons;
use super::apps::{Apps, NewApp};
use super::audit::{AccountAudit, AppAudit};
use super::builds::BuildPage;
use super::config::{Config, Paste};
use super::domains::Domains;
use super::invitations::Welcome;
use super::jobs::Jobs;
use super::keys::KeyList;
use super::login::Login;
use super::logs::Logs;
use super::overview::Overview;
use super::releases::{ReleasePage, Rollback};
use super::security::Security;
use super::settings::Settings;
use super::setup::Setup;
use super::sign_in::SignIn;
use super::teams::{TeamList, TeamPage};
use super::tokens::TokenList;
use crate::templates;

fn check(template: &str, samples: &[impl Serialize]) {
    for sample in samples {
        let html = templates::page(template, sample).unwrap_or_else(|error| panic!("{template}: {error}"));
        let scripts = html.matches("<script").count();
        assert_eq!(scripts, html.matches("<script defer src=\"/console/static/").count(), "{template}: {html}");
        for bad in [" style=", " onclick=", "javascript:", "alert('x')"] {
            assert!(!html.contains(bad), "{template} contains {bad}: {html}");
        }
        // A form that changes something proves where it is from.
        for form in html.split("<form").skip(1) {
            let form = form.split("</form>").next().unwrap_or_default();
            let head = form.split('>').next().unwrap_or_default();
            assert!(
                !head.contains("method=\"post\"") || form.contains("name=\"csrf\" value=\"c5f\""),
                "{template}: {form}"
            );
        }
        // Whatever is filled in has a name for those who do not see it.
        for id in html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert_eq!(html.matches(&format!(" id=\"{id}\"")).count(), 1, "{template}: the id {id} is there twice");
        }
    }
}

#[test]
fn every_page_is_valid_and_escapes_what_it_is_given() {
    check("access.html", &Access::samples());
    check("account_audit.html", &AccountAudit::samples());
    check("app_audit.html", &AppAudit::samples());
    check("keys.html", &KeyList::samples());
    check("security.html", &Security::samples());
    check("team.html", &TeamPage::samples());
    check("teams.html", &TeamList::samples());
    check("tokens.html", &TokenList::samples());
    check("activity.html", &Activity::samples());
    check("addon.html", &AddonPage::samples());
    check("addons.html", &Addons::samples());
    check("apps.html", &Apps::samples());
    check("build.html", &BuildPage::samples());
    check("config.html", &Config::samples());
    check("domains.html", &[Domains::sample()]);
    check("jobs.html", &Jobs::samples());
    check("login.html", &Login::samples());
    check("logs.html", &Logs::samples());
    check("new_app.html", &[NewApp::sample()]);
    check("overview.html", &Overview::samples());
    check("paste.html", &Paste::samples());
    check("release.html", &ReleasePage::samples());
    check("rollback.html", &Rollback::samples());
    check("settings.html", &Settings::samples());
    check("invitation.html", &Welcome::samples());
    check("setup.html", &[Setup::sample()]);
    check("sign_in.html", &[SignIn::sample(), SignIn::second_step()]);
}

#[test]
fn the_parts_that_follow_what_happens_are_blocks_of_their_pages() {
    for (template, block) in [("overview.html", "head"), ("overview.html", "live")] {
        for sample in Overview::samples() {
            assert!(!templates::block(template, block, &sample).expect("rendered").contains("<html"));
        }
    }
    for sample in Activity::samples() {
        let html = templates::block("activity.html", "live", &sample).expect("rendered");
        assert!(!html.contains("<script") && !html.contains("<html"), "{html}");
    }
}
