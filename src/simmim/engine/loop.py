"""The loop. One page, the same for every task.

for every step that is left:
    set the learning rate, seed the layers' noise
    for every micro batch of the step: forward, backward
    clip once, step once
    now and then, and at the end: evaluate, report, save
"""

from functools import partial

from simmim.engine.distributed import without_sync
from simmim.engine.interruption import Interrupted, Interruption
from simmim.engine.metrics import Meter, MetricsLog
from simmim.engine.optimizer import set_lr
from simmim.engine.products import fast_products
from simmim.engine.progress import Watch
from simmim.engine.run import MicroBatch, Run


def train(run: Run, log: MetricsLog | None) -> None:
    """Do the steps that are left.

    Args:
        run: a run, built, and restored if it was cut.
        log: where reports are written; None in all processes but the main one.

    Raises:
        Interrupted: where the run was asked to stop; it saved before it did.
        RunError: where it cannot go on; what was saved stays whole.
    """
    run.module.train()
    watch = Watch(run.total_steps, done=run.step, shown=run.output.progress and run.processes.is_main)
    with Interruption() as interruption, watch, fast_products(run.products):
        for micro_batches in run.clock.waiting_for(run.batches(run.step)):
            interruption.check_parent()
            set_lr(run.optimizer, partial(run.schedule.lr, run.step))
            run.begin_step(run.step)
            values, micro = Meter(), None
            for micro in run.clock.waiting_for(micro_batches):
                values.add(_forward_backward(run, micro), weight=micro.share)
            assert micro is not None, "a step has at least one micro batch in every process"
            signal = run.take_step(values, micro=micro, signal=interruption.number)
            run.after_step(run.step)
            run.clock.step_done(run.batch)
            watch.step(run.step)
            if run.due(run.output.log_every) or run.due(run.output.evaluate_every):
                numbers = run.evaluate(run.step) if run.due(run.output.evaluate_every) else {}
                row = run.report(log, numbers)
                watch.say(run.step, row, run.clock.remaining_seconds(run.total_steps - run.step))
            if run.due(run.output.save_every) or signal:
                run.save(at_once=run.finished or bool(signal))
            if signal and not run.finished:
                raise Interrupted(f"stopped at step {run.step} of {run.total_steps}, and saved", signal)


def _forward_backward(run: Run, micro: MicroBatch):
    with without_sync(run.module, last=micro.last):
        with run.precision.autocast():
            output = run.module(*micro.inputs)
        # Processes add up to one step: their gradients are averaged, their shares sum to one.
        run.precision.backward(output.loss * micro.share * run.processes.world)
    return run.values(output)
