"""A user's script with mistakes; every line with ``# wrong`` must be told (test_types.py)."""

import fastdd


def main() -> None:
    data = fastdd.data.load("c-digits")
    fastdd.distill(data, iteratons=3)  # wrong
    fastdd.distill(data, ipc="10")  # wrong
    fastdd.distill(data, method="dn")  # wrong
    fastdd.distill(data, debias="fair")  # wrong
    fastdd.distill(data, metric="theirs")  # wrong
    fastdd.distill(data, callbacks=[print])  # wrong
    fastdd.distill("c-digits")  # wrong
    fastdd.estimate(data, net=5)  # wrong
    fastdd.Distillation(data, lr_img="0.1")  # wrong
    fastdd.Distillation(data).run(resum=True)  # wrong
    print(fastdd.Distillation(data).settings.iteratons)  # wrong
    fastdd.train_experts(data, out="experts", num_expert=3)  # wrong
    fastdd.train_experts(data, out="experts", debias="fairdd-iw")  # wrong
    fastdd.kde_weights(data, temprature=0.3)  # wrong
    fastdd.evaluate(data, data)  # wrong
    fastdd.destill(data)  # wrong
