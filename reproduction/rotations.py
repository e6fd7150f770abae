"""Rotations of a profile: one of its pretraining regions held out in the test region's place.

The paper tests in Hokkaido alone. In a rotation another region is tested on by encoders that were pretrained on the
other pretraining regions; the validation regions and the cells set aside in the remaining ones stay what they are, and
Hokkaido takes no part. The encoder of the recommended embedding is trained as long as the others there, not longer.
"""

from __future__ import annotations

import dataclasses

from reproduction.settings import Profile
from selm.errors import InputError, unknown


def rotated(profile: Profile, region: str) -> Profile:
    """The same profile with one of its pretraining regions as the test region, pretrained on the others.

    It is called by both names ("japan-cpu-kansai") and has folds of its own (`reproduction.places.splits`). Raises
    InputError for a profile without official labels, a rotation itself, or a region that is not pretrained on.
    """
    if profile.stand_ins or profile.folds:
        raise InputError(f"profile '{profile.name}': only profiles on the official data of Japan can be rotated")
    if profile.held_out:
        raise InputError(f"profile '{profile.name}' is a rotation already")
    names = [one.name for one in profile.regions_for("pretrain")]
    if region not in names:
        raise unknown("pretraining region", region, names)
    regions = tuple(
        dataclasses.replace(one, role="test") if one.name == region else one
        for one in profile.regions
        if one.role != "test"
    )
    return dataclasses.replace(
        profile,
        name=f"{profile.name}-{region}",
        purpose=f"{profile.name} with {region} held out in place of the test region",
        regions=regions,
        surroundings=dataclasses.replace(profile.surroundings, longer=1),
        rotations=(),
        held_out=region,
    )
