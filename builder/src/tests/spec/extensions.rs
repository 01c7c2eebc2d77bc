//! Image extensions (EXT of the digest, Image Extension spec), as they show from inside a build.

use crate::errors::Failure;
use crate::extension::{JUST_NOW, Target};
use crate::outcome::{Missing, Outcome};
use crate::testing::Folders;

/// Provides a name.
const PROVIDES: &str = "printf '[[provides]]\nname = \"x\"' > $CNB_BUILD_PLAN_PATH";
/// Requires it.
const REQUIRES: &str = "printf '[[requires]]\nname = \"x\"\n[requires.metadata]\nv = \"9\"' > $CNB_BUILD_PLAN_PATH";
/// Both.
const OWN: &str = "printf '[[provides]]\nname = \"x\"\n[[requires]]\nname = \"x\"' > $CNB_BUILD_PLAN_PATH";
const EMPTY: &str = "printf 'ARG base_image\nFROM ${base_image}\n' > $CNB_OUTPUT_DIR/run.Dockerfile";
const ORDER: &str = "[[order-extensions]]\ngroup = [{id = 't/x'}]\n[[order]]\ngroup = [{id = 't/a'}]";

/// A build of the extension `t/x` before the buildpack `t/a`, which requires `x`.
fn folders(detect: Option<&str>, generate: Option<&str>) -> Folders {
    let folders = Folders::new(ORDER).file("app/app.txt", "").file("platform/env/CONFIG", "value");
    folders.buildpack("t/a", REQUIRES, "true").extension("t/x", detect, generate)
}

fn missing(outcome: Outcome) -> Missing {
    assert_eq!(outcome.failure, None);
    outcome.missing.expect("something to extend")
}

fn problem(generate: &str) -> String {
    let outcome = folders(Some(PROVIDES), Some(generate)).run();
    outcome.failure.map(|failure| failure.to_string()).unwrap_or_default()
}

#[test]
fn an_extension_provides_and_generates() {
    let rows = [
        ("10.2 it runs in the app's folder", "test -f app.txt"),
        ("10.1 it knows where it lies", "test -x $CNB_EXTENSION_DIR/bin/generate; test -z \"$CNB_BUILDPACK_DIR\""),
        ("10.2 it is given its output, the platform and the plan", "test -d $1; test -d $2/env; test -s $3"),
        (
            "10.2 all are in its environment",
            "test $1 = $CNB_OUTPUT_DIR; test $2 = $CNB_PLATFORM_DIR; test $3 = $CNB_BP_PLAN_PATH",
        ),
        ("10.2 there is no layers directory for it", "test -z \"$CNB_LAYERS_DIR\"; test $1 != ${1%/generated/*}"),
        ("10.2 the plan has what is required of it", "grep -q 'name = \"x\"' $3; grep -q 'v = \"9\"' $3"),
        ("5.2 it has the user's variables", "test $CONFIG = value; test -z \"$SECRET\""),
        ("3.2 it knows the target", "test $CNB_TARGET_OS = linux; test $CNB_TARGET_DISTRO_NAME = debian"),
        ("10.2 it may write neither Dockerfile", "rm $1/run.Dockerfile"),
    ];
    for (rule, script) in rows {
        let outcome = folders(Some(PROVIDES), Some(&format!("{EMPTY}\n{script}"))).run();
        assert_eq!(outcome.failure, None, "{rule}");
        assert_eq!(outcome.extensions[0].id, "t/x", "{rule}");
    }
    let outcome = folders(Some(PROVIDES), Some("exit 3")).run();
    let failed = Failure::ExtensionFailed { extension: "t/x@1.0.0".into(), how: "failed with exit code 3".into() };
    assert_eq!(outcome.failure.as_ref(), Some(&failed));
    assert_eq!(failed.exit_code(), 91);
}

#[test]
fn what_it_wrote_is_read_and_checked() {
    let both = "cp $1/run.Dockerfile $1/build.Dockerfile
        printf '[[build.args]]\nname = \"B\"\nvalue = \"1\"\n[[run.args]]\nname = \"R\"\nvalue = \"2\"' > $1/extend-config.toml
        mkdir $1/context.run; touch $1/context.run/file";
    let steps = missing(folders(Some(PROVIDES), Some(&format!("{EMPTY}\n{both}"))).run()).generated.steps;
    let shown: Vec<_> =
        steps.iter().map(|step| (step.target, step.args[0].name.as_str(), step.context.as_deref())).collect();
    assert_eq!(shown, [(Target::Run, "R", Some("context.run")), (Target::Build, "B", None)]);

    let rows = [
        ("mkdir $1/context $1/context.build", "both of the folders context and context.build"),
        ("mkdir $1/context", ""),
        ("echo RUN true > $1/build.Dockerfile", "build.Dockerfile has no FROM"),
        ("echo FROM scratch >> $1/run.Dockerfile", "a second FROM"),
        ("echo odd > $1/extend-config.toml", "extend-config.toml: "),
        (
            "printf '[[run.args]]\nname = \"a=b\"\nvalue = \"1\"' > $1/extend-config.toml",
            "is not a name of an argument",
        ),
        ("head -c 1100000 /dev/zero > $1/run.Dockerfile", "has more than 1048576 bytes"),
    ];
    for (script, expected) in rows {
        let said = problem(&format!("{EMPTY}\n{script}"));
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{script}: {said}");
        assert!(said.is_empty() || said.contains("t/x@1.0.0"), "{said}");
    }
}

#[test]
fn without_programs_it_brings_what_they_would_write() {
    let toml = "[[provides]]\nname = 'x'";
    let dockerfile = "ARG base_image\nFROM ${base_image}\nCOPY a /a\n";
    let brought = folders(None, None)
        .file("extensions/t_x/1.0.0/detect/plan.toml", toml)
        .file("extensions/t_x/1.0.0/generate/run.Dockerfile", dockerfile)
        .file("extensions/t_x/1.0.0/generate/context/a", "1");
    let missing = missing(brought.run());
    assert_eq!(missing.generated.steps[0].dockerfile, dockerfile);
    assert_eq!(missing.generated.steps[0].context.as_deref(), Some("context"));
    assert!(brought.path("layers/generated/t_x/context/a").is_file());
    // Without a plan it passes as well, and provides nothing: the buildpack's need is not met.
    let outcome = folders(None, None).run();
    assert!(matches!(outcome.failure, Some(Failure::NothingDetected { .. })), "{:?}", outcome.failure);
}

#[test]
fn it_is_optional_and_never_enough() {
    let rows = [
        ("10.1 one that says no is left out", Some("exit 100"), false),
        ("10.1 one that fails is left out", Some("exit 1"), false),
        ("10.1 one that requires something is left out", Some(OWN), false),
        ("10.1 one whose provision nobody needs is left out", Some(PROVIDES), false),
        ("10.1 one that provides nothing takes part", Some("true"), true),
    ];
    for (rule, detect, takes_part) in rows {
        let alone = Folders::new(ORDER).buildpack("t/a", "true", "true").extension("t/x", detect, Some("true"));
        let outcome = alone.run();
        assert_eq!(outcome.failure, None, "{rule}");
        assert_eq!(outcome.extensions.len(), usize::from(takes_part), "{rule}");
        assert_eq!(outcome.group[0].id, "t/a", "{rule}");
    }
    let order = ORDER.replace("{id = 't/a'}", "{id = 't/a', optional = true}");
    let none = Folders::new(&order).buildpack("t/a", "exit 100", "true").extension("t/x", Some("true"), Some("true"));
    assert!(matches!(none.run().failure, Some(Failure::NothingDetected { .. })), "3.7 an extension builds nothing");
}

#[test]
fn what_it_provides_is_met_for_all_after_it() {
    let order = "[[order-extensions]]\ngroup = [{id = 't/x'}, {id = 't/y'}]\n[[order]]\ngroup = [{id = 't/a'}]";
    let folders = Folders::new(order)
        .extension("t/x", Some(PROVIDES), Some("grep -q x $3"))
        .extension("t/y", Some(PROVIDES), Some("test ! -s $3 || ! grep -q name $3"))
        .buildpack("t/a", OWN, "! grep -q name $CNB_BP_PLAN_PATH");
    let outcome = folders.run();
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.extensions.len(), 2);
}

#[test]
fn a_build_goes_on_where_the_images_are_as_generated() {
    let key = |generate: &str| missing(folders(Some(PROVIDES), Some(generate)).run()).generated.key;
    let copies = format!("{EMPTY}\necho 'COPY app.txt /' >> $1/run.Dockerfile");
    let anew = format!("{EMPTY}\nprintf 'ARG build_id=0\nRUN echo $build_id' >> $1/run.Dockerfile");
    let first = key(EMPTY).expect("a key");
    assert_eq!(key(EMPTY), Some(first.clone()));
    assert_ne!(key(&copies), Some(first.clone()));
    assert_eq!(key(&anew), None, "whatever names build_id is applied by every build");

    let with_file = |text: &str| folders(Some(PROVIDES), Some(&copies)).file("app/app.txt", text).run();
    assert_ne!(missing(with_file("1")).generated.key, missing(with_file("2")).generated.key);

    let build = folders(Some(PROVIDES), Some(EMPTY));
    assert_eq!(build.run_extended(&first).missing, None);
    assert!(build.run_extended("another").missing.is_some());
    assert_eq!(build.run_extended(JUST_NOW).missing, None);
    let without = Folders::one("0.10", "true", "true");
    assert!(without.run_extended(&first).missing.is_some(), "an app that needs no extension any more");
    assert_eq!(without.run().missing, None);
}
