//! A small executor: one thread, virtual time, and an order of everything that depends on nothing but the seed.
//!
//! Each task belongs to a process. A frozen process is not run, a killed one is dropped wherever it waits.

use std::{
    cell::{Cell, RefCell, RefMut},
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::world::{Id, World};

/// A task's place.
pub type TaskId = usize;

/// A process: a member's agent in one of its lives.
pub type Process = (Id, u64);

type Work = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    process: Process,
    work: Option<Work>,
}

/// The world and the tasks that live in it.
#[derive(Clone)]
pub struct Sim(Rc<Inner>);

struct Inner {
    world: RefCell<World>,
    tasks: RefCell<Vec<Option<Slot>>>,
    current: Cell<TaskId>,
}

impl Sim {
    /// A simulation of `world`.
    pub fn new(world: World) -> Sim {
        Sim(Rc::new(Inner { world: RefCell::new(world), tasks: RefCell::new(Vec::new()), current: Cell::new(usize::MAX) }))
    }

    /// The world, for a moment: never across an await.
    pub fn world(&self) -> RefMut<'_, World> {
        self.0.world.borrow_mut()
    }

    /// Starts a task of a process.
    pub fn spawn(&self, process: Process, work: impl Future<Output = ()> + 'static) -> TaskId {
        let mut tasks = self.0.tasks.borrow_mut();
        tasks.push(Some(Slot { process, work: Some(Box::pin(work)) }));
        let id = tasks.len() - 1;
        drop(tasks);
        self.world().ready.push_back(id);
        id
    }

    /// Ends a task wherever it is.
    pub fn cancel(&self, id: TaskId) {
        let slot = self.0.tasks.borrow_mut().get_mut(id).and_then(Option::take);
        drop(slot);
    }

    /// The task that is running.
    pub fn current(&self) -> TaskId {
        self.0.current.get()
    }

    /// Runs whatever can run now.
    pub fn settle(&self) {
        loop {
            self.bury();
            let next = self.world().ready.pop_front();
            match next {
                Some(id) => self.poll(id),
                None => return,
            }
        }
    }

    /// Drops the tasks of processes that were killed.
    fn bury(&self) {
        let killed = std::mem::take(&mut self.world().killed);
        for process in killed {
            let dead: Vec<Slot> = {
                let mut tasks = self.0.tasks.borrow_mut();
                tasks.iter_mut().filter(|s| s.as_ref().is_some_and(|s| s.process == process)).filter_map(Option::take).collect()
            };
            drop(dead);
        }
    }

    fn poll(&self, id: TaskId) {
        let taken = {
            let mut tasks = self.0.tasks.borrow_mut();
            let Some(Some(slot)) = tasks.get_mut(id) else { return };
            let (member, _) = slot.process;
            let mut world = self.0.world.borrow_mut();
            if world.members[member].agent.frozen {
                world.members[member].agent.held.push(id);
                return;
            }
            slot.work.take()
        };
        let Some(mut work) = taken else { return };
        self.0.current.set(id);
        let done = work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        self.0.current.set(usize::MAX);
        let mut tasks = self.0.tasks.borrow_mut();
        if let Some(place) = tasks.get_mut(id)
            && let Some(slot) = place
        {
            if done {
                *place = None;
            } else {
                slot.work = Some(work);
                return;
            }
        }
        drop(tasks);
    }

    /// Waits until `condition` gives something; asked again whenever this task is woken.
    pub async fn until<T>(&self, mut condition: impl FnMut(&mut World) -> Option<T>) -> T {
        std::future::poll_fn(|_| match condition(&mut self.world()) {
            Some(value) => Poll::Ready(value),
            None => Poll::Pending,
        })
        .await
    }

    /// Sleeps for `span` on the clock of member `me`.
    pub async fn sleep(&self, me: Id, span: Duration) {
        let (task, at) = (self.current(), self.world().later(me, span));
        self.world().at(at, move |w| w.wake(task));
        self.until(|w| (w.now >= at).then_some(())).await;
    }

    /// `work`, unless it takes longer than `span`.
    pub async fn timeout<T>(&self, me: Id, span: Duration, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut sleep = pin!(self.sleep(me, span));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(value) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            sleep.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}

/// One value that an event leaves for a task.
pub struct Letter<T> {
    sim: Sim,
    content: Rc<RefCell<Option<T>>>,
    task: TaskId,
}

/// Where the value is put.
pub struct Sender<T>(Rc<RefCell<Option<T>>>, TaskId);

impl<T> Sender<T> {
    /// Leaves the value. Nobody may be waiting any more.
    pub fn send(self, world: &mut World, value: T) {
        *self.0.borrow_mut() = Some(value);
        world.wake(self.1);
    }
}

impl<T> Letter<T> {
    /// A letter to the task that is running.
    pub fn new(sim: &Sim) -> (Sender<T>, Letter<T>) {
        let content = Rc::new(RefCell::new(None));
        let task = sim.current();
        (Sender(content.clone(), task), Letter { sim: sim.clone(), content, task })
    }

    /// Waits for it.
    pub async fn arrived(self) -> T {
        debug_assert_eq!(self.sim.current(), self.task);
        std::future::poll_fn(|_| self.content.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)).await
    }
}
