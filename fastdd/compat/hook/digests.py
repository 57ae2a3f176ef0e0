"""Digests of published functions, to tell changed code from unchanged (:meth:`.recognition.Source.digest`).

Of DatasetCondensation 53f63a6, FairDD 5e6af8e, MTT 50dccea, TESLA 488842e, IDC ceac95a, DC-Bench 2a57711.
Of their forks where the text says the same in other words, or more that is not ours (parameters with defaults, networks
of several outputs): DiffAugment of DataDAM and IDM, which clone before they repeat; epoch of CAFE and IDM; NCFM's
DiffAug; and the ConvNet of NCFM and DREAM, which has more ways to the features. DataDAM's epoch does not augment
without DSA, and CAFE's DiffAugment takes a seed for no operation too: they are compared.
"""

DIGESTS = {
    "DiffAugment": {
        *("1ed0b9200a3d896c", "674b7dc6343435cf", "aeabdc720b9cf753"),
        *("638505585388eb8f", "d5c6df05d9ec9ddc"),
    },
    "augment": {"f65951e528a4f370"},
    "distance_wb": {"502b74da04404c2b"},
    "match_loss": {"6db4a5ba2b42c511"},
    "epoch": {
        *("3798b0ef838b917c", "b3dbc1a689202d25", "db7385f43a449fc6"),
        *("1933a4af6b216183", "70c3568dd1d18ed6"),
    },
    "epoch_Fairness_Metric": {"6a6b550d9b50b044"},
    "ConvNet": {
        *("28227d905114f730", "5dec082de81ac1a5", "8b7bfc662708e464", "c93779a0e479e8ba", "cfd1a040de21c3da"),
        *("7d800003b4b212d8", "40841534a8766e93"),
    },
    "DiffAug": {"4065d69510be1053", "4457cfee58f122ef", "ed600da1aaf514c3"},
}

# Of each function or class alone, its own name aside, and whose it is: copies have other names
# (:meth:`.recognition.Source.body_digest`).
BODIES = {
    **dict.fromkeys(
        (
            "0a49435fd1c0e1cd",
            "354cab9cb678f811",
        ),
        "DiffAugment",
    ),
    **dict.fromkeys(("194369be029fc9d6",), "augment"),
    **dict.fromkeys(("efad3163097f26e8",), "distance_wb"),
    **dict.fromkeys(("36e4fe45f42224a6",), "match_loss"),
    **dict.fromkeys(
        (
            "1c533d532c1616bd",
            "587c409080efb611",
            "997ede1f3292f5cd",
        ),
        "epoch",
    ),
    **dict.fromkeys(("3c1e7da73a8b5b9a",), "epoch_Fairness_Metric"),
    **dict.fromkeys(
        (
            "0416931033cf8290",
            "233926a04f88da95",
            "3ff021d8ba6797fc",
            "948d171d76ccee3d",
            "b84d79a1636b2a86",
        ),
        "ConvNet",
    ),
    **dict.fromkeys(
        (
            "2c26f142ee12f143",
            "e4d8601d4720b57c",
        ),
        "DiffAug",
    ),
}

# Of methods of networks that call the layers of a block one by one, alone (:meth:`.recognition.Source.method_digests`):
# those of IDM fe23bbc's networks.
LAYER_LOOPS = {"embed_channel_avg": {"2ec0d2b06a206f2d", "3c4809682ee0ef60", "ddf48833256b1e52"}}
