//! Following what runs: of which apps something changed since somebody last looked.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use engine::{Change, Engine};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use model::AppId;

/// Follows an engine for as long as it answers, and again once it does. One for each who looks.
#[derive(Default)]
pub(crate) struct Watch {
    /// Never locked: this way who has one may be shared between threads, and a stream may not.
    changes: Option<Mutex<BoxStream<'static, Change>>>,
    news: News,
}

/// Of what something changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// Of everything, as far as anybody knows.
    pub(crate) all: bool,
    pub(crate) apps: BTreeSet<AppId>,
}

impl News {
    fn note(&mut self, change: Change) {
        match change {
            Change::All => self.all = true,
            Change::App(app) => {
                self.apps.insert(app);
            }
        }
    }
}

impl Watch {
    /// What changed since this was last asked: everything if nobody can say.
    pub(crate) async fn news(&mut self, engine: &dyn Engine) -> News {
        self.take_what_is_there();
        if self.changes.is_none() {
            self.changes = engine.changes().await.ok().map(Mutex::new);
            self.news.all = true;
        }
        std::mem::take(&mut self.news)
    }

    /// Gives back news that nothing could be done about.
    pub(crate) fn give_back(&mut self, news: News) {
        self.news.all |= news.all;
        self.news.apps.extend(news.apps);
    }

    /// Waits for news. May be dropped while it waits. While the engine is away there are none.
    pub(crate) async fn changed(&mut self) {
        match self.stream() {
            Some(changes) => match changes.next().await {
                Some(change) => self.news.note(change),
                None => self.changes = None,
            },
            None => std::future::pending().await,
        }
    }

    fn stream(&mut self) -> Option<&mut BoxStream<'static, Change>> {
        self.changes.as_mut().map(|changes| changes.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_what_is_there(&mut self) {
        while let Some(changes) = self.stream() {
            match changes.next().now_or_never() {
                Some(Some(change)) => self.news.note(change),
                Some(None) => self.changes = None,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::Workload;
    use engine::fake::FakeEngine;
    use model::Exit;
    use model::clock::SystemClock;
    use serde_json::json;

    use super::*;

    fn workload() -> Workload {
        let container = json!({"rootfs": {"layers": []}, "args": [], "env": {}, "working_dir": "/", "uid": 1, "mounts": [],
            "limits": {"memory_bytes": 1, "cpu_millis": 1, "cpu_weight": 1, "pids": 1}});
        let workload = json!({"id": "app.v1.web", "app": "00000000-0000-4000-8000-000000000001", "release": 1, "quantity": 1,
            "process_type": "web", "container": container, "probe": {"alive": {"settle": {"secs": 1, "nanos": 0}}},
            "stop_grace": {"secs": 1, "nanos": 0}});
        serde_json::from_value(workload).expect("a workload")
    }

    #[tokio::test]
    async fn one_app_is_named_and_an_engine_that_was_away_changed_everything() {
        let engine = FakeEngine::new(Arc::new(SystemClock));
        let mut watch = Watch::default();
        let everything = || News { all: true, apps: BTreeSet::new() };
        assert_eq!(watch.news(&engine).await, everything(), "at first");
        assert_eq!(watch.news(&engine).await, News::default());
        let workload = workload();
        engine.apply(workload.clone()).await.expect("applied");
        engine.crash(&workload.id, 1, Exit::Code(1));
        watch.changed().await;
        let one = || News { all: false, apps: BTreeSet::from([workload.app]) };
        let news = watch.news(&engine).await;
        assert_eq!(news, one());
        watch.give_back(news);
        assert_eq!(watch.news(&engine).await, one());

        engine.set_reachable(false);
        watch.changed().await;
        assert_eq!(watch.news(&engine).await, everything());
        assert!(watch.changed().now_or_never().is_none(), "nobody tells");
        engine.set_reachable(true);
        assert_eq!(watch.news(&engine).await, everything(), "who knows what happened meanwhile");
        assert_eq!(watch.news(&engine).await, News::default());
    }
}
