/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef AREA_H
#define AREA_H
#define AREA_FACTOR 1
double area(double radius);
#endif
