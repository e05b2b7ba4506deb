//! Long work beside the loop. Dropping it cuts it off wherever it is.

use std::{cell::RefCell, future::Future, rc::Rc, time::Duration};

use spilo::{
    agent::{
        guard::{StopMode, ToGuard},
        memory::TaskEnd,
        rejoin::{self, Rejoin, Way},
        view::{StoppedData, Task},
    },
    dcs::{Dcs, snapshot::StatusKey},
    model::{Lsn, MemberName, Timeline},
    postgres::{
        control_data::ClusterState,
        rewind::{self, Origin, Relation},
    },
};

use crate::{
    agent::{Process, ServerState, Shell},
    dcs_client::Client,
    exec::{Sim, TaskId},
    mutations::Mutation,
    postgres_model::Data,
    world::{Id, MILLI, SECOND},
};

/// Why a task failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The member that it needs did not answer.
    NoSource,
    /// Anything else.
    Other,
}

type Outcome = Result<TaskEnd, Failure>;

/// A running task.
pub struct Running {
    pub kind: Task,
    pub result: Rc<RefCell<Option<Outcome>>>,
    task: TaskId,
    sim: Sim,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sim.cancel(self.task);
    }
}

/// What every task works with.
#[derive(Clone)]
pub struct Tools {
    sim: Sim,
    id: Id,
    me: MemberName,
    server: Rc<ServerState>,
    dcs: Rc<Client>,
    slots: bool,
}

impl Shell {
    /// Tools for a task.
    pub fn tools(&self) -> Tools {
        Tools {
            sim: self.sim.clone(),
            id: self.id,
            me: self.me.clone(),
            server: self.server.clone(),
            dcs: self.dcs.clone(),
            slots: self.settings.use_slots,
        }
    }

    /// Starts a task, unless one like it failed a moment ago.
    pub fn begin(&mut self, kind: Task, work: impl Future<Output = Outcome> + 'static) {
        if self.task.is_some() || self.memory.has_to_wait_for(kind, self.now()) {
            return;
        }
        let result = Rc::new(RefCell::new(None));
        let (end, sim, id) = (result.clone(), self.sim.clone(), self.id);
        let process = (id, self.sim.world().members[id].agent.life);
        let task = self.sim.spawn(process, async move {
            let outcome = work.await;
            *end.borrow_mut() = Some(outcome);
            sim.world().wake_agent(id);
        });
        self.task = Some(Running { kind, result, task, sim: self.sim.clone() });
    }
}

impl Tools {
    async fn takes(&self, least: u64, most: u64) {
        let span = self.sim.world().between(least, most);
        self.sim.sleep(self.id, Duration::from_nanos(span)).await;
    }

    /// Asks another server over a replication connection.
    async fn origin(&self, source: Id) -> Result<Origin, Failure> {
        self.takes(5 * MILLI, 40 * MILLI).await;
        let reached = self.sim.world().connected(self.id, source);
        let answer = self.sim.world().origin(source).filter(|_| reached);
        match answer {
            Some(origin) => Ok(origin),
            None => {
                self.takes(10 * MILLI, if reached { 20 * MILLI } else { 3 * SECOND }).await;
                Err(Failure::NoSource)
            }
        }
    }

    fn tell(&self, message: ToGuard) {
        self.sim.world().tell_guard(self.id, message);
    }

    async fn gone(&self, limit: Duration) -> bool {
        let server = self.server.clone();
        // What the guard says is taken in by the loop, which goes on meanwhile.
        let gone = self.sim.until(move |_| (server.process.get() == Process::None).then_some(()));
        let pulse = async {
            loop {
                self.sim.sleep(self.id, Duration::from_millis(10)).await;
            }
        };
        self.sim.timeout(self.id, limit, first(gone, pulse)).await.is_some()
    }
}

/// The first future's value; the second only keeps the task awake.
async fn first<T>(a: impl Future<Output = T>, b: impl Future<Output = ()>) -> T {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    std::future::poll_fn(|cx| {
        let _ = b.as_mut().poll(cx);
        a.as_mut().poll(cx)
    })
    .await
}

/// initdb.
pub async fn initialize(tools: Tools) -> Outcome {
    tools.takes(400 * MILLI, 1500 * MILLI).await;
    tools.sim.world().initdb(tools.id);
    Ok(TaskEnd::Done)
}

/// pg_basebackup.
pub async fn copy(tools: Tools, leader: MemberName, source: Id) -> Outcome {
    let slot = tools.me.slot_name();
    let mut attempt = 0;
    loop {
        tools.origin(source).await?;
        let has_slot = !tools.slots || tools.sim.world().data(source).slots.contains(&slot);
        if has_slot {
            break;
        }
        attempt += 1;
        if attempt > 20 {
            return Err(Failure::Other);
        }
        tools.sim.sleep(tools.id, Duration::from_millis(100)).await;
    }
    let epoch = tools.sim.world().members[source].server.as_ref().map(|s| s.epoch);
    for _ in 0..4 {
        tools.takes(50 * MILLI, 400 * MILLI).await;
        let mut world = tools.sim.world();
        let alive = epoch.is_some_and(|epoch| world.server(source, epoch).is_some_and(|s| !s.frozen));
        if !alive || !world.connected(tools.id, source) {
            return Err(Failure::Other);
        }
    }
    let mut world = tools.sim.world();
    let identity = world.next();
    let from = world.data(source).clone();
    let mut control = from.control;
    control.state = if world.members[source].server.as_ref().is_some_and(|s| s.primary) {
        ClusterState::InProduction
    } else {
        ClusterState::InArchiveRecovery
    };
    let copied = Data { identity, control, standby_signal: true, backup_label: true, streamed: false, slots: Default::default(), ..from };
    let disk = &mut world.members[tools.id].disk;
    if let Some(replaced) = disk.data.replace(copied) {
        disk.old = Some(replaced);
    }
    (disk.rewinding, disk.unrecorded) = (false, false);
    world.note(|w| format!("{}     is a copy of {leader} at {:?}", tools.me, w.data(tools.id).place()));
    Ok(TaskEnd::Copied(leader))
}

/// The way back behind a leader.
pub async fn rejoin(tools: Tools, data: StoppedData, leader: MemberName, source: Id, how: Rejoin) -> Outcome {
    let origin = tools.origin(source).await?;
    let mut way = rejoin::way(&data, &origin, &how);
    if tools.sim.world().mutated(Mutation::RejoinAsItIs) && way == Way::Rewind {
        way = Way::AsItIs;
    }
    match way {
        Way::Refuse | Way::NoRoom => Err(Failure::Other),
        Way::AsItIs => Ok(TaskEnd::ReadyToFollow(leader)),
        Way::Rewind => pg_rewind(tools, leader, source).await,
        Way::Copy => copy(tools, leader, source).await,
    }
}

async fn pg_rewind(tools: Tools, leader: MemberName, source: Id) -> Outcome {
    if !tools.sim.world().mutated(Mutation::RewindWithoutCheckpoint) {
        tools.origin(source).await?;
        tools.takes(20 * MILLI, 300 * MILLI).await;
        tools.sim.world().checkpoint(source);
        // On a standby it is a restartpoint, which changes no timeline.
    }
    tools.origin(source).await?;
    let marked = !tools.sim.world().mutated(Mutation::RewindWithoutMark);
    tools.sim.world().members[tools.id].disk.rewinding = marked;
    tools.takes(20 * MILLI, 100 * MILLI).await;
    {
        let mut world = tools.sim.world();
        let theirs = world.data(source).control.checkpoint_timeline;
        let Some(mine) = world.members[tools.id].disk.data.as_mut() else { return Err(Failure::Other) };
        if mine.control.timeline() == theirs {
            world.counters.event("rewind finds nothing to do");
            world.data_mut(tools.id).standby_signal = true;
            world.members[tools.id].disk.rewinding = false;
            return Ok(TaskEnd::ReadyToFollow(leader));
        }
        mine.damaged = true;
        world.check_rewind(source);
    }
    let epoch = tools.sim.world().members[source].server.as_ref().map(|s| s.epoch);
    for _ in 0..3 {
        tools.takes(30 * MILLI, 300 * MILLI).await;
        let mut world = tools.sim.world();
        let alive = epoch.is_some_and(|epoch| world.server(source, epoch).is_some_and(|s| !s.frozen));
        if !alive || !world.connected(tools.id, source) || world.one_in(20) {
            world.counters.event("rewind is cut off");
            return Err(Failure::Other);
        }
    }
    let mut world = tools.sim.world();
    let from = world.data(source).clone();
    let timeline = world.timeline(source);
    let mine = world.data_mut(tools.id);
    (mine.branch, mine.end, mine.damaged, mine.standby_signal) = (from.branch, from.end, false, true);
    mine.histories.extend(from.histories);
    mine.control.state = ClusterState::InArchiveRecovery;
    mine.control.checkpoint_timeline = from.control.checkpoint_timeline;
    mine.control.checkpoint = from.control.checkpoint;
    mine.control.min_recovery = Some((from.end, timeline));
    world.members[tools.id].disk.rewinding = false;
    world.note(|w| format!("{}     rewound to {leader} at {:?}", tools.me, w.data(tools.id).place()));
    world.counters.event("rewind succeeds");
    Ok(TaskEnd::ReadyToFollow(leader))
}

/// Compares histories with the leader.
pub async fn compare(tools: Tools, timeline: Timeline, position: Lsn, source: Id) -> Outcome {
    let origin = tools.origin(source).await?;
    let past = {
        let world = tools.sim.world();
        world.members[tools.id].disk.data.as_ref().and_then(|d| world.lineage(d, timeline))
    };
    let diverged = rewind::standby_relation((timeline, position), past.as_deref(), &origin) != Relation::Ancestor;
    Ok(if diverged { TaskEnd::Diverged } else { TaskEnd::Done })
}

/// pg_promote, and waiting for it.
pub async fn promote(tools: Tools, reserved: Timeline) -> Outcome {
    tools.takes(MILLI, 5 * MILLI).await;
    {
        let mut world = tools.sim.world();
        if world.facts(tools.id).is_none() {
            return Err(Failure::Other);
        }
        let present = world.timeline(tools.id);
        let data = world.data_mut(tools.id);
        let free = (present.0 + 1..reserved.0).filter(|n| !data.histories.contains(n)).collect::<Vec<u32>>();
        data.places.extend(free);
    }
    if !tools.sim.world().promote(tools.id) {
        return Err(Failure::Other);
    }
    for _ in 0..6000 {
        tools.takes(8 * MILLI, 12 * MILLI).await;
        let world = tools.sim.world();
        match &world.members[tools.id].server {
            Some(server) if server.writes() => {
                let position = server.insert;
                if world.timeline(tools.id) >= reserved {
                    return Ok(TaskEnd::Promoted(position));
                }
                drop(world);
                tools.sim.world().data_mut(tools.id).standby_signal = true;
                tools.tell(ToGuard::Stop(StopMode::Immediate));
                return Err(Failure::Other);
            }
            Some(_) => {}
            None => return Err(Failure::Other),
        }
    }
    Err(Failure::Other)
}

/// A clean stop, and the key with the last position.
pub async fn hand_over(tools: Tools) -> Outcome {
    tools.takes(10 * MILLI, 100 * MILLI).await;
    tools.sim.world().checkpoint(tools.id);
    tools.server.stopping.set(true);
    tools.tell(ToGuard::Stop(StopMode::Fast));
    if !tools.gone(Duration::from_secs(60)).await {
        tools.tell(ToGuard::Stop(StopMode::Immediate));
        if !tools.gone(Duration::from_secs(10)).await {
            tools.tell(ToGuard::Stop(StopMode::Kill));
            tools.gone(Duration::from_secs(10)).await;
        }
    }
    let control = tools.sim.world().stopped(tools.id).map(|s| s.control).ok_or(Failure::Other)?;
    let status = (control.state == ClusterState::ShutDown).then(|| StatusKey {
        optime: control.checkpoint,
        final_lsn: Some(control.checkpoint),
        final_timeline: Some(control.checkpoint_timeline),
        ..StatusKey::default()
    });
    tools.dcs.release_leader(&tools.me, status.as_ref()).await.map_err(|_| Failure::Other)?;
    Ok(TaskEnd::Done)
}

/// A checkpoint.
pub async fn checkpoint(tools: Tools) -> Outcome {
    tools.takes(20 * MILLI, 500 * MILLI).await;
    tools.sim.world().checkpoint(tools.id);
    Ok(TaskEnd::Done)
}
