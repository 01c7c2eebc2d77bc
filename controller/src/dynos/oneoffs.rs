//! One-off dynos of people, while they run. Only the controller that started one knows it: the next one ends what it finds.

use std::sync::Arc;

use model::AppId;

use super::Dyno;
use crate::Controller;

/// Lists a one-off among its app's dynos, as long as this lives.
pub(crate) struct Listed {
    controller: Arc<Controller>,
    id: String,
}

impl Listed {
    pub(crate) fn new(controller: &Arc<Controller>, app: AppId, dyno: Dyno) -> Self {
        let id = dyno.id.clone();
        let dyno = Dyno { state: "up", since: controller.clock.now(), ..dyno };
        controller.live.oneoffs.lock().insert(id.clone(), (app, dyno));
        Self { controller: Arc::clone(controller), id }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.controller.live.oneoffs.lock().remove(&self.id);
    }
}

impl Controller {
    /// The one-offs of an app that run.
    pub(super) fn running_oneoffs(&self, app: AppId) -> Vec<Dyno> {
        let all = self.live.oneoffs.lock();
        all.values().filter(|(owner, _)| *owner == app).map(|(_, dyno)| dyno.clone()).collect()
    }
}
