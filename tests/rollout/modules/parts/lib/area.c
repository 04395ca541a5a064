/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "area.h"

#include <math.h>

double area(double radius) {
    return AREA_FACTOR * acos(-1.0) * pow(radius, 2.0);
}
